//! The examples do what they say.

use std::fs;

use crate::trees::{assert_same, some_tree};
use crate::world::within;

#[path = "../../examples/pull.rs"]
#[expect(dead_code, reason = "its main function is not called here")]
mod pull;
#[path = "../../examples/push.rs"]
#[expect(dead_code, reason = "its main function is not called here")]
mod push;
#[path = "../../examples/read_store.rs"]
#[expect(dead_code, reason = "its main function is not called here")]
mod read_store;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_push_pull_and_read() {
    within(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (data, tree, copy) =
            (folder.path().join("data"), folder.path().join("tree"), folder.path().join("copy"));
        some_tree(&tree, 1);
        let proxy = whit::Proxy::start(&data).expect("started");
        let receipt = Box::pin(push::push(proxy.access(), "web", tree.clone())).await.expect("pushed");
        let pulled = Box::pin(pull::pull(proxy.access(), "web", &copy)).await.expect("pulled");
        assert_eq!(pulled.release, receipt.release);
        assert_same(&tree, &copy);
        let error = Box::pin(pull::pull(proxy.access(), "nothing", &copy)).await.expect_err("there is none");
        assert!(error.to_string().contains("Missing"), "{error}");
        proxy.stop().await;
        let mut read = Vec::new();
        let bytes = read_store::read(&data, "web", "bin/tool", &mut read).expect("read");
        assert_eq!(bytes, read.len() as u64);
        assert!(read == fs::read(tree.join("bin/tool")).expect("a file"));
    })
    .await;
}
