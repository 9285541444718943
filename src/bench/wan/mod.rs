//! A real emulated link: two network namespaces, a TUN device in each, and a relay between them.
//!
//! Real stacks of TCP and QUIC run over it. Kernels without netem can do it too; needed are Linux, root,
//! `/dev/net/tun` and the `ip` program. What the relay counts are IP packets as the link's owner pays for
//! them, headers and retransmissions included.

mod device;
mod namespace;
mod race;
mod relay;

pub use self::race::race;
