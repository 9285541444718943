//! whit from the outside: over real QUIC, as the installed program, under kills, damage and hostile peers.
//!
//! One binary, so that the crate is linked once. `WHIT_SLOW_TESTS=1` makes the large ones as large as
//! they are meant to be.

mod access;
mod alike;
mod answers;
mod archives;
mod bench;
mod blobs;
mod building;
mod changing;
mod codec;
mod collecting;
mod container;
mod damage;
mod credit;
mod decoders;
mod deflate;
mod deflate_programs;
mod destinations;
mod documents;
mod examples;
mod executables;
mod explain;
mod flow;
mod growing;
mod hostile;
mod kill;
mod ledgers;
mod lying_proxy;
mod machine;
mod many;
mod meant;
mod memory;
mod mounts;
mod record_queries;
mod places;
mod places_random;
mod program;
mod pull;
mod push;
mod push_hostile;
mod push_machines;
mod push_simulator;
mod relinked;
mod space_view;
mod store;
mod stores;
mod strangers;
mod trees;
mod trust;
mod maintenance;
mod walker;
mod world;
