#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wireloom_proto::testing::priority(data));
