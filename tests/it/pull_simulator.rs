//! Simulates a pull: both machines in one thread, without sockets or files; dice decide whose turn it is.

use std::collections::{HashMap, HashSet, VecDeque};

use delta::compression::Decompressor;
use format::manifest::{NodeRef, Reference, Root, SegmentName};
use format::pack::{Frame, FrameKind};
use format::recipe::ChunkRef;
use format::record::{Cost, Record};
use ground::faults::Fault;
use ground::ids::{ChunkId, ReleaseId, ShortId};
use ground::limits::PULL_REQUESTS_OPEN;
use protocol::pull::{Agent, DirectoryView, Proxy, ReleaseView, Window};
use protocol::transfer::{Bounds, Encoding};
use protocol::wire::{Batch, PullReply, PullRequest, Refusal};
use protocol::{ContentView, Error, StorageView};

use crate::push_simulator::Dice;
use crate::space_view::Release;

/// A directory in memory, and what was fetched for it.
#[derive(Default, Clone)]
pub struct Directory {
    /// Chunks, segments and nodes that are here.
    pub held: HashMap<ChunkId, Vec<u8>>,
    /// The same, of those that were given to keep.
    pub kept: HashMap<ChunkId, Vec<u8>>,
    pub segments: HashSet<ChunkId>,
    /// The release that it holds.
    pub base: Option<(ReleaseId, Vec<NodeRef>)>,
    /// Chunks that are wrongly found for short ids.
    pub alike: HashMap<ShortId, ChunkRef>,
    /// Content that came, in order.
    pub came: Vec<ChunkId>,
    pub is_slow: bool,
}

impl Directory {
    /// Creates a directory that holds a release.
    pub fn of(release: &Release) -> Self {
        let mut directory = Self { held: release.content.clone(), ..Self::default() };
        for (node, (bytes, _)) in release.segments.iter().zip(&release.parts) {
            directory.held.insert(node.id, bytes.clone());
            directory.segments.insert(node.id);
        }
        directory.base = Some((release.root.release(), release.segments.clone()));
        directory
    }

    fn bytes(&self, id: &ChunkId) -> Option<&Vec<u8>> {
        self.held.get(id).or_else(|| self.kept.get(id))
    }

    /// Asserts that the tree can be written: the manifest was kept, and each chunk is here.
    pub fn assert_complete(&self, release: &Release) {
        assert!(release.segments.iter().all(|segment| self.kept.contains_key(&segment.id)), "each segment");
        let made = Root::above(
            release.root.profile,
            release.root.shape,
            release.root.totals,
            release.segments.clone(),
            |node| assert!(self.kept.contains_key(&ChunkId::of(&node.bytes)), "each node"),
        );
        assert_eq!(made.expect("within limits").release(), release.root.release());
        assert!(release.content.keys().all(|id| self.bytes(id).is_some()), "each chunk");
        let once: HashSet<&ChunkId> = self.came.iter().collect();
        assert_eq!(once.len(), self.came.len(), "none came twice");
    }
}

impl ContentView for Directory {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let missing = || Refusal { fault: Fault::Corrupt, text: "no such chunk".to_owned(), hint: None };
        out.extend_from_slice(self.bytes(&chunk.id).ok_or_else(missing)?);
        Ok(())
    }
}

impl StorageView for Directory {
    fn find(&mut self, references: &[Reference]) -> Result<Vec<Option<ChunkRef>>, Refusal> {
        let find = |reference: &Reference| match reference {
            Reference::Short(short) => self.alike.get(short).copied().or_else(|| {
                let all = self.held.iter().chain(&self.kept);
                let (id, bytes) = all.into_iter().find(|(id, _)| ShortId::from(**id) == *short)?;
                Some(ChunkRef { id: *id, bytes: u32::try_from(bytes.len()).expect("small") })
            }),
            Reference::Full(chunk) => {
                let bytes = self.bytes(&chunk.id)?;
                (bytes.len() == chunk.bytes as usize).then_some(*chunk)
            }
        };
        Ok(references.iter().map(find).collect())
    }

    fn keep(&mut self, frame: Frame) -> Result<(), Refusal> {
        let lengths = frame.chunks.iter().map(|chunk| chunk.bytes).collect();
        let batch = Batch { codec: frame.codec, lengths, payload: frame.payload };
        let mut plain = Vec::new();
        let parts = batch.open(&mut Decompressor::new(), &mut plain).expect("only whole frames are kept");
        for (chunk, part) in frame.chunks.iter().zip(parts) {
            let bytes = plain[part].to_vec();
            assert_eq!(*chunk, ChunkRef::of(&bytes), "only what is what its name says is kept");
            match frame.kind {
                FrameKind::Content => self.came.push(chunk.id),
                FrameKind::Manifest => drop(self.segments.insert(chunk.id)),
            }
            self.kept.insert(chunk.id, bytes);
        }
        Ok(())
    }
}

impl DirectoryView for Directory {
    fn announced(&mut self, _: &Record, _: &Root) -> Result<(), Refusal> {
        Ok(())
    }

    fn resolve(&mut self, names: &[SegmentName]) -> Result<Vec<Option<NodeRef>>, Refusal> {
        let find = |name: &SegmentName| {
            let id = self.segments.iter().find(|id| SegmentName::from(**id) == *name)?;
            let bytes = u32::try_from(self.bytes(id)?.len()).expect("small");
            Some(NodeRef { id: *id, bytes })
        };
        Ok(names.iter().map(find).collect())
    }

    fn is_unkept(&mut self, segment: &NodeRef) -> Result<bool, Refusal> {
        Ok(!self.kept.contains_key(&segment.id))
    }

    fn wants_executables(&self) -> bool {
        self.is_slow
    }
}

/// A store that has everything of some releases.
#[derive(Default)]
pub struct Shelves {
    content: HashMap<ChunkId, Vec<u8>>,
    /// How often it was asked how to encode: each time it says something else.
    encodings: usize,
}

impl Shelves {
    pub fn of(releases: &[&Release]) -> Self {
        let mut all = HashMap::new();
        for release in releases {
            all.extend(release.content.clone());
            let parts = release.segments.iter().zip(&release.parts);
            all.extend(parts.map(|(node, (bytes, _))| (node.id, bytes.clone())));
        }
        Self { content: all, encodings: 0 }
    }
}

impl ContentView for Shelves {
    fn read(&mut self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let missing = || Refusal { fault: Fault::Corrupt, text: "no such chunk".to_owned(), hint: None };
        out.extend_from_slice(self.content.get(&chunk.id).ok_or_else(missing)?);
        Ok(())
    }
}

impl ReleaseView for Shelves {
    fn encoding(&mut self) -> Encoding {
        self.encodings += 1;
        [Encoding::LIGHT, Encoding::Parcels { level: 3 }, Encoding::HARDEST][self.encodings % 3]
    }
}

/// Returns what the proxy opens a pull with.
pub fn opened(release: &Release) -> protocol::pull::Release {
    let record = Record {
        app: "app".parse().expect("a name"),
        release: release.root.release(),
        sequence: 1,
        created: 0,
        user: "ada".parse().expect("a name"),
        labels: Vec::new(),
        totals: release.root.totals,
        cost: Cost::default(),
        behalf: Vec::new(),
    };
    protocol::pull::Release { record, root: release.root.clone(), segments: release.segments.clone() }
}

/// How many messages the queues of a conversation take.
#[derive(Debug, Clone, Copy)]
pub struct Queues {
    pub requests: usize,
    pub replies: usize,
}

/// A mistake that a simulation is to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The n-th reply is lost.
    Lost(usize),
    /// Two replies change places.
    Swapped(usize),
    /// The n-th reply comes twice.
    Repeated(usize),
    /// The n-th request is lost: its credit is never given back.
    Unasked(usize),
    /// The proxy allows one request less than the agent's window.
    Window,
}

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Finished,
    Mismatch,
    BrokenOff,
    /// Neither half can do anything.
    Stuck,
    Failed(String),
}

/// A pull of `release` by a directory; `base` is the release that the proxy finds for the one that the agent names.
pub struct Pull<'a> {
    pub release: &'a Release,
    pub base: Option<&'a Release>,
    pub window: Window,
    pub queues: Queues,
    pub mistake: Option<Mistake>,
}

impl<'a> Pull<'a> {
    pub fn new(release: &'a Release, base: Option<&'a Release>) -> Self {
        let queues = Queues { requests: PULL_REQUESTS_OPEN, replies: 4 };
        Self { release, base, window: Window::default(), queues, mistake: None }
    }

    /// Runs both machines; `dice` decides whose turn it is. Stops after `steps` turns.
    pub fn talk(&self, directory: &mut Directory, dice: &mut Dice, steps: usize) -> End {
        let mut shelves =
            Shelves::of(&[Some(self.release), self.base].into_iter().flatten().collect::<Vec<_>>());
        let named = directory.base.as_ref().filter(|_| self.base.is_some());
        let known = self.base.filter(|base| named.is_some_and(|(id, _)| *id == base.root.release()));
        let base = named.map(|(_, segments)| segments.clone()).unwrap_or_default();
        let mut agent = Agent::new(self.window, base);
        let known = known.map(|base| base.segments.clone());
        let questions = self.window.requests - usize::from(self.mistake == Some(Mistake::Window));
        let bounds = Bounds { questions, ..Bounds::PULL };
        let mut proxy = Proxy::open(opened(self.release), known, bounds, &mut shelves);
        let (mut requests, mut replies): (VecDeque<PullRequest>, VecDeque<PullReply>) = Default::default();
        let mut asking: VecDeque<PullRequest> = VecDeque::new();
        let (mut said, mut asked, mut is_idle) = (0, 0, false);
        for _ in 0..steps {
            let may_say = replies.len() < self.queues.replies && !is_idle;
            let may_hear = asking.is_empty() && !replies.is_empty();
            let may_ask = !asking.is_empty() && requests.len() < self.queues.requests;
            // The proxy reads at any time.
            if !requests.is_empty() && dice.percent(50) || !(may_say || may_hear || may_ask) {
                let Some(request) = requests.pop_front() else { return End::Stuck };
                is_idle = false;
                if let Err(error) = proxy.receive(request) {
                    return End::Failed(error.to_string());
                }
            } else if may_say && (dice.percent(50) || !(may_hear || may_ask)) {
                match proxy.next(&mut shelves) {
                    Ok(Some(reply)) => {
                        said += 1;
                        self.say(reply, said, &mut replies);
                    }
                    Ok(None) => is_idle = true,
                    Err(error) => return End::Failed(error.to_string()),
                }
            } else if may_ask {
                asked += 1;
                let request = asking.pop_front();
                requests.extend(request.filter(|_| self.mistake != Some(Mistake::Unasked(asked))));
            } else if let Some(reply) = replies.pop_front().filter(|_| may_hear) {
                match agent.receive(reply, directory) {
                    Ok(requests) => asking.extend(requests),
                    Err(Error::Mismatch) => return End::Mismatch,
                    Err(error) => return End::Failed(error.to_string()),
                }
                if agent.is_finished() {
                    return End::Finished;
                }
            }
        }
        End::BrokenOff
    }

    fn say(&self, reply: PullReply, number: usize, replies: &mut VecDeque<PullReply>) {
        match self.mistake {
            Some(Mistake::Lost(lost)) if lost == number => {}
            Some(Mistake::Repeated(repeated)) if repeated == number => {
                replies.extend([reply.clone(), reply]);
            }
            Some(Mistake::Swapped(swapped)) if swapped == number => {
                let at = replies.len().saturating_sub(1);
                replies.insert(at, reply);
            }
            _ => replies.push_back(reply),
        }
    }
}
