//! whit sends only the whit that changed.
//!
//! A build host pushes an application's artifacts to a proxy near where they are needed. Artifacts are
//! cut into content-defined chunks named by their BLAKE3 hash; only chunks that the proxy has never seen
//! cross the QUIC link. The proxy rebuilds complete artifacts and delivers them to
//! destinations that know nothing of chunks.
//!
//! A program of one's own can do the same, in a process of its own:
//!
//! ```
//! # #[tokio::main(flavor = "multi_thread", worker_threads = 2)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use whit::{Proxy, PullOptions, PushOptions, Silent};
//!
//! let folder = tempfile::tempdir()?;
//! let (build, target) = (folder.path().join("build"), folder.path().join("target"));
//! std::fs::create_dir(&build)?;
//! std::fs::write(build.join("index.html"), "Hello, whit.")?;
//!
//! let proxy = Proxy::start(&folder.path().join("data"))?;
//! let options = PushOptions::new("web".parse()?, build);
//! let receipt = whit::push(proxy.access(), &options, Arc::new(Silent)).await?;
//!
//! let latest = "web".parse()?;
//! let options = PullOptions::default();
//! let pulled = whit::pull(proxy.access(), &latest, &target, options, Arc::new(Silent)).await?;
//! proxy.stop().await;
//!
//! assert_eq!(pulled.release, receipt.release);
//! assert_eq!(std::fs::read_to_string(target.join("index.html"))?, "Hello, whit.");
//! # Ok(())
//! # }
//! ```
//!
//! More is in `examples/`. Everything else is private, or public for tests alone (the feature `testing`).
//!
//! # The floors
//!
//! Bottom-up; each names only those above it in this list (tests/tidy checks that). docs/ARCHITECTURE.md is the map.
//!
//! | folder of `src` | does |
//! |---|---|
//! | `ground` | bounds, names, faults of errors, progress, threads |
//! | `delta` | zstd, block sums, patches, executables by their functions, similarity |
//! | `recode` | unpacks archives so that they can be rebuilt bit for bit |
//! | `format` | what is stored: chunks, recipes, manifests, packs, records |
//! | `protocol` | messages, tokens, and both halves of a push as state machines without sockets |
//! | `disk` | files that survive a crash, memory maps |
//! | `bench` | whit beside other tools |
//! | `restore` | rebuilds complete artifacts from chunks |
//! | `ledger` | what must be agreed on: records, deliveries, tokens, leases |
//! | `store` | packs and index of a space, and its records in memory |
//! | `net` | QUIC, keys, blocking work |
//! | `agent` | pushes and pulls |
//! | `delivery` | destinations, and what goes there |
//! | `target` | a directory of this machine that pulls, and goes back |
//! | `proxy` | answers requests, keeps spaces, delivers |
//! | `library` | starts a proxy, pushes, pulls, reads a file: for a program of one's own |
//! | `config` | the configuration file |
//! | `cli` | the command line |

// What tests and benches look into is private otherwise, so that the compiler finds what nobody uses.
#[cfg(not(feature = "testing"))]
mod restore;
#[cfg(feature = "testing")]
pub mod restore;
#[cfg(not(feature = "testing"))]
mod ledger;
#[cfg(feature = "testing")]
pub mod ledger;
#[cfg(not(feature = "testing"))]
mod store;
#[cfg(feature = "testing")]
pub mod store;
#[cfg(not(feature = "testing"))]
mod net;
#[cfg(feature = "testing")]
pub mod net;
#[cfg(not(feature = "testing"))]
mod agent;
#[cfg(feature = "testing")]
pub mod agent;
#[cfg(not(feature = "testing"))]
mod delivery;
#[cfg(feature = "testing")]
pub mod delivery;
#[cfg(not(feature = "testing"))]
mod target;
#[cfg(feature = "testing")]
pub mod target;
#[cfg(not(feature = "testing"))]
mod proxy;
#[cfg(feature = "testing")]
pub mod proxy;
mod library;
#[cfg(not(feature = "testing"))]
mod config;
#[cfg(feature = "testing")]
pub mod config;
pub mod cli;

pub use agent::pull::{PullOptions, Pulled};
pub use agent::push::{PushOptions, Receipt};
pub use agent::scan::{Links, Selection};
pub use agent::{Access, Effort};
pub use format::manifest::EntryPath;
pub use format::record::{DeliveryEvent, DeliveryReport, DeliveryState};
pub use ground::faults::{Fault, Faulty};
pub use ground::ids::{AppName, DestinationName, Label, ReleaseId, Selector, SpaceName};
pub use ground::monitor::{Monitor, Phase, Silent};
pub use library::{Error, Proxy, Result, pull, push, read_file};
pub use protocol::address::ProxyUrl;
pub use restore::OutsideLinks;
