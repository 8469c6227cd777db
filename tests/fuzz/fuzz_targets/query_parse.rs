#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logboom_fuzzed::query_parse(data));
