#![no_main]

holdfast_fuzz::target!("context_id");
