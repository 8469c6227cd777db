#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logboom_fuzz::wire_decode(data));
