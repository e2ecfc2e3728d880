#![no_main]

holdfast_fuzz::target!("client_openai");
