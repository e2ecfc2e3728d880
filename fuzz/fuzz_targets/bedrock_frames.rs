#![no_main]

holdfast_fuzz::target!("bedrock_frames");
