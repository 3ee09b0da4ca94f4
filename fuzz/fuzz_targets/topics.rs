#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wireloom_messaging::testing::topics(data));
