//! The root of a manifest and the nodes between it and the segments (FORMAT 2.3 and 2.4).

use serde::{Deserialize, Serialize};

use super::{Error, MODE_MASK};
pub use crate::chunking::Profile;
use ground::ids::{ChunkId, ReleaseId};
use ground::limits::MANIFEST_SEGMENTS_MAX;

/// First byte of a node.
pub(super) const NODE_VERSION: u8 = 0x12;
/// First byte of a root.
const ROOT_VERSION: u8 = 0x13;
/// First byte of a root whose totals hold the top directory's mode.
const MODE_ROOT_VERSION: u8 = 0x16;
/// First byte of a root that names its release.
const CONTENT_ROOT_VERSION: u8 = 0x17;
/// Children that a root lists itself; more are gathered into nodes.
pub(super) const ROOT_CHILDREN_MAX: usize = 64;
/// Children of a node, at most.
pub(super) const NODE_CHILDREN_MAX: usize = 256;
/// Levels of nodes: with at least two children each, enough for any manifest within limits.
const DEPTH_MAX: u8 = 20;

/// A reference to a segment or node, in its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeRef {
    /// The chunk that holds it.
    pub id: ChunkId,
    /// Its bytes.
    pub bytes: u32,
}

/// The shape of a release: a tree or one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A directory with all below it.
    Tree,
    /// A single file.
    File,
}

/// The totals of a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Directories, the top one not counted.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Chunk references, repeated ones included.
    pub chunks: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Permission bits of the top directory, where they differ from [`FOLDER_MODE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder_mode: Option<u16>,
}

/// The permission bits of a top directory whose root does not hold them.
pub const FOLDER_MODE: u16 = 0o755;

impl Totals {
    /// Sets the permission bits of the top directory. The owner keeps access, as a copy must be filled, renamed and
    /// removed in the end.
    #[must_use]
    pub fn with_folder_mode(self, mode: u16) -> Self {
        let mode = (mode & MODE_MASK) | 0o700;
        Self { folder_mode: (mode != FOLDER_MODE).then_some(mode), ..self }
    }

    /// Returns the permission bits of the top directory.
    pub fn folder_mode(&self) -> u16 {
        self.folder_mode.unwrap_or(FOLDER_MODE)
    }

    /// Returns whether a release of this shape may hold these bits: equal content has one form.
    pub(super) fn is_folder_mode_plain(&self, shape: Shape) -> bool {
        match self.folder_mode {
            None => true,
            Some(mode) => shape == Shape::Tree && *self == self.with_folder_mode(mode),
        }
    }
}

/// The root: parameters, totals, and the topmost list of nodes or segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// How the content was cut.
    pub profile: Profile,
    /// Tree or file.
    pub shape: Shape,
    /// The totals of the entries.
    pub totals: Totals,
    /// Levels of nodes between this list and the segments.
    pub depth: u8,
    /// Nodes, or segments where `depth` is zero.
    pub children: Vec<NodeRef>,
    /// The release, where archives are among its entries: other manifests may make it too. Who reads all entries proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<ReleaseId>,
}

impl Root {
    /// Returns the root's bytes: a version byte and MessagePack.
    pub fn encode(&self) -> Vec<u8> {
        let version = match (self.named, self.totals.folder_mode) {
            (Some(_), _) => CONTENT_ROOT_VERSION,
            (None, Some(_)) => MODE_ROOT_VERSION,
            (None, None) => ROOT_VERSION,
        };
        let mut bytes = vec![version];
        rmp_serde::encode::write(&mut bytes, self).expect("a Vec takes every write");
        bytes
    }

    /// Returns the name of the chunk that holds the root: it names this one manifest.
    pub fn id(&self) -> ChunkId {
        ChunkId::of(&self.encode())
    }

    /// Returns the release that this root names.
    pub fn release(&self) -> ReleaseId {
        self.named.unwrap_or_else(|| self.id().into())
    }

    /// Reads a root.
    ///
    /// # Errors
    /// A newer version, bytes that are no root, or a profile or counts beyond the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |offset| Error::Malformed { part: "root", id: ChunkId::of(bytes), offset };
        match bytes.first() {
            None => return Err(malformed(0)),
            Some(&(ROOT_VERSION | MODE_ROOT_VERSION | CONTENT_ROOT_VERSION)) => {}
            Some(version) => return Err(Error::Version(*version)),
        }
        let root: Self = rmp_serde::from_slice(&bytes[1..]).map_err(|_| malformed(1))?;
        let bounded = root.depth <= DEPTH_MAX && root.children.len() <= ROOT_CHILDREN_MAX;
        let bounded = bounded && root.totals.is_folder_mode_plain(root.shape);
        if !bounded || root.profile.check().is_err() || root.encode() != bytes {
            return Err(malformed(bytes.len()));
        }
        Ok(root)
    }
}

/// Returns a node's bytes: a version byte and its children.
pub(super) fn encode_node(children: &[NodeRef]) -> Vec<u8> {
    let mut bytes = vec![NODE_VERSION];
    rmp_serde::encode::write(&mut bytes, children).expect("a Vec takes every write");
    bytes
}

/// Reads a node's children.
///
/// # Errors
/// A newer version, or bytes that are no node.
pub fn decode_node(bytes: &[u8]) -> Result<Vec<NodeRef>, Error> {
    let malformed = |offset| Error::Malformed { part: "node", id: ChunkId::of(bytes), offset };
    match bytes.first() {
        None => return Err(malformed(0)),
        Some(&NODE_VERSION) => {}
        Some(version) => return Err(Error::Version(*version)),
    }
    let children: Vec<NodeRef> = rmp_serde::from_slice(&bytes[1..]).map_err(|_| malformed(1))?;
    if (1..=NODE_CHILDREN_MAX).contains(&children.len()) && encode_node(&children) == bytes {
        Ok(children)
    } else {
        Err(malformed(bytes.len()))
    }
}

/// Returns the nodes and the root above `segments`: a function of its arguments alone, so that both sides of a
/// push compute them instead of sending them.
///
/// # Errors
/// [`Error::TooLarge`] beyond the limit on segments.
pub(super) fn gather(
    mut children: Vec<NodeRef>,
    mut keep: impl FnMut(Vec<u8>) -> NodeRef,
) -> Result<(u8, Vec<NodeRef>), Error> {
    if children.len() > MANIFEST_SEGMENTS_MAX {
        return Err(Error::TooLarge(MANIFEST_SEGMENTS_MAX));
    }
    let mut depth = 0;
    while children.len() > ROOT_CHILDREN_MAX {
        let mut parents = Vec::with_capacity(children.len() / NODE_CHILDREN_MIN);
        let mut rest = children.as_slice();
        while !rest.is_empty() {
            let (node, after) = rest.split_at(node_length(rest));
            parents.push(keep(encode_node(node)));
            rest = after;
        }
        children = parents;
        depth += 1;
    }
    Ok((depth, children))
}

/// The fewest children of a node, except a level's last.
const NODE_CHILDREN_MIN: usize = 16;

/// Returns the number of children of the first node: up to one whose id ends a node (one in 32), within the bounds.
fn node_length(children: &[NodeRef]) -> usize {
    let ends = |child: &NodeRef| child.id.as_bytes()[12].is_multiple_of(32);
    let most = children.len().min(NODE_CHILDREN_MAX);
    let least = most.min(NODE_CHILDREN_MIN);
    (least..most).find(|length| ends(&children[length - 1])).unwrap_or(most)
}
