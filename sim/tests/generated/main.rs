//! The generated code is what the proto file generates: `REGENERATE=1` writes it anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

#[test]
fn the_committed_code_is_what_the_proto_generates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = root.join("proto");
    let files = protox::compile([proto.join("pubsub_api.proto")], [&proto]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    let generated = fs::read_to_string(out.path().join("eventbus.v1.rs")).unwrap();
    let committed = root.join("src/salesforce/pubsub/eventbus.v1.rs");
    if std::env::var_os("REGENERATE").is_some() {
        fs::write(&committed, &generated).unwrap();
    }
    let committed = fs::read_to_string(&committed).unwrap();
    assert!(
        generated == committed,
        "run `REGENERATE=1 cargo test -p tributary-sim --test generated` and commit what it writes"
    );
}
