#![no_main]

holdfast_fuzz::target!("upstream_bedrock");
