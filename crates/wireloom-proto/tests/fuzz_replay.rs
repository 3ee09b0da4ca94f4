//! Replays the corpus of the fuzz targets, so that every input that once mattered is tried by `cargo test --workspace`.

use std::fs;
use std::path::Path;

use wireloom_proto::testing;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
        let path = entry.expect("a directory entry").path();
        let data = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Named first, so that a panic tells which input it was.
        println!("{}", path.display());
        run(&data);
        // Every prefix too: most faults are found at an end.
        (0..data.len().min(256)).for_each(|end| run(&data[..end]));
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", corpus.display());
}

macro_rules! replays {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), testing::$target);
        })*
    };
}

replays! {
    varint frame_reader settings qpack_decode qpack_streams qpack_pair huffman headers capsule datagram connection connection_script
    prefix_integer priority protocols stream_header
}
