//! An agent for tests: it drives the agent's half of a push over a raw link, step by step, and records exactly which
//! chunks it has sent and which were acknowledged.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use delta::compression::Codec;
use format::chunking::Profile;
use format::manifest::{SegmentIndex, shorten};
use format::record::Record;
use ground::ids::ChunkId;
use ground::monitor::Silent;
use protocol::push::{Action, Agent, Opening};
use protocol::wire::{
    Batch, Challenge, FromAgent, ManifestForm, Marks, Open, Operation, PushReply, Request, SegmentBatch,
};
use protocol::{Chunks, Error, InputView, Segments};
use whit::agent::Access;
use whit::agent::scan::{Located, Scan, Selection, scan};
use whit::net::link::{self, Connection, Receiver, Sender};

/// Chunks in one message: few, so that there are many messages, each much smaller than a frame.
const CHUNKS_PER_BATCH: usize = 4;

/// The result of a step.
#[derive(Debug)]
pub enum Step {
    /// A reply was read.
    Heard,
    /// A batch of chunks was sent.
    Sent,
    /// The commit was sent.
    Committing,
    /// The release is committed.
    Committed(Box<Record>),
}

/// A push under way.
pub struct Walker {
    _connection: Connection,
    sender: Sender,
    receiver: Receiver,
    machine: Agent,
    input: Input,
    batches: Vec<Vec<ChunkId>>,
    acknowledged: usize,
    committing: bool,
}

/// The pushed files.
struct Input {
    scan: Scan,
    /// Chunks to send, in order; none marks the end of a job.
    waiting: VecDeque<Option<Vec<Located>>>,
}

impl InputView for Input {
    type Error = Error;

    fn segments(&mut self, wanted: &Segments) -> Result<SegmentBatch, Error> {
        let segment = |index: &SegmentIndex| self.scan.spool.segment(*index).expect("a segment");
        let parts: Vec<Vec<u8>> = wanted.segments.iter().map(segment).collect();
        Ok(raw_segments(&if wanted.full { parts } else { thin(&parts) }))
    }

    fn prove(&mut self, _: &[SegmentIndex], _: &Challenge) -> Result<[u8; 32], Error> {
        panic!("its token allows all")
    }

    fn encode(&mut self, Chunks { segments, marks, .. }: Chunks) -> Result<(), Error> {
        let mut marks = marks.iter();
        let mut missing = Vec::new();
        for segment in segments {
            let chunks = self.scan.spool.chunks(segment).expect("a segment");
            missing.extend(chunks.into_iter().filter(|_| marks.next() == Some(true)));
        }
        self.waiting.extend(missing.chunks(CHUNKS_PER_BATCH).map(|part| Some(part.to_vec())));
        self.waiting.push_back(None);
        Ok(())
    }
}

impl Walker {
    /// Begins to push `path` as `app`.
    pub async fn begin(access: &Access, app: &str, path: &Path) -> link::Result<Self> {
        let scan = scan(path, &Selection::default(), Profile::DEFAULT, 2, &Silent).expect("a scan");
        let open = Open {
            app: app.parse().expect("a name"),
            labels: Vec::new(),
            destinations: Vec::new(),
            release: scan.root.release(),
            profile: scan.root.profile,
            shape: scan.root.shape,
            totals: scan.root.totals,
            segments: u32::try_from(scan.segments.len()).expect("few"),
            manifest: ManifestForm::Short(Vec::new()),
            dry_run: false,
            behalf: Vec::new(),
            then: Vec::new(),
            keeps_current: false,
            moves: false,
            cache_only: false,
            root: None,
        };
        let (machine, open) = Agent::new(open, scan.segments.clone(), Opening::Short);
        let connection = link::connect(&access.url, &link::Options::default()).await?;
        let (mut sender, receiver) = connection.open().await?;
        sender.send(&Request::new(&access.token, &Operation::Push(open))).await?;
        Ok(Self {
            _connection: connection,
            sender,
            receiver,
            machine,
            input: Input { scan, waiting: VecDeque::new() },
            batches: Vec::new(),
            acknowledged: 0,
            committing: false,
        })
    }

    /// Takes one step: reads a reply if there is one; otherwise sends a waiting batch; otherwise waits.
    pub async fn step(&mut self) -> link::Result<Step> {
        let reply = if self.input.waiting.is_empty() {
            Some(self.receiver.receive::<PushReply>().await)
        } else {
            tokio::select! {
                biased;
                reply = self.receiver.receive::<PushReply>() => Some(reply),
                () = std::future::ready(()) => None,
            }
        };
        if let Some(reply) = reply {
            let reply = reply?.ok_or(link::Error::Ended)?;
            let actions = self.machine.receive(reply, &mut self.input).expect("an honest proxy");
            return self.act(actions).await;
        }
        let Some(chunks) = self.input.waiting.pop_front().flatten() else {
            let actions = self.machine.chunks_sent(&mut self.input).expect("a whole input");
            return self.act(actions).await;
        };
        self.batches.push(chunks.iter().map(|located| located.chunk.id).collect());
        self.sender.send(&FromAgent::Chunks(read(&chunks))).await?;
        Ok(Step::Sent)
    }

    /// Steps until the release is committed.
    pub async fn finish(&mut self) -> link::Result<Record> {
        loop {
            if let Step::Committed(record) = self.step().await? {
                return Ok(*record);
            }
        }
    }

    /// Returns every chunk that was sent.
    pub fn sent(&self) -> Vec<ChunkId> {
        self.batches.iter().flatten().copied().collect()
    }

    /// Returns the chunks that the proxy has acknowledged.
    pub fn acknowledged(&self) -> HashSet<ChunkId> {
        self.batches[..self.acknowledged].iter().flatten().copied().collect()
    }

    async fn act(&mut self, actions: Vec<Action>) -> link::Result<Step> {
        let mut step = Step::Heard;
        for action in actions {
            match action {
                Action::Send(message) => {
                    self.committing |= matches!(message, FromAgent::Commit);
                    self.sender.send(&message).await?;
                    if self.committing {
                        step = Step::Committing;
                    }
                }
                Action::Stored(batches) => self.acknowledged = usize::try_from(batches).expect("few"),
                Action::Committed { record, .. } => step = Step::Committed(Box::new(record)),
                Action::Cached(_) | Action::Delivery(_) | Action::RollsOut(_) | Action::Finish => {}
            }
        }
        Ok(step)
    }
}

fn read(chunks: &[Located]) -> Batch {
    let part = |located: &Located| {
        let mut bytes = vec![0; located.chunk.bytes as usize];
        let file = fs::File::open(&located.path).expect("a file");
        file.read_exact_at(&mut bytes, located.offset).expect("as it was");
        bytes
    };
    raw(&chunks.iter().map(part).collect::<Vec<_>>())
}

/// Makes a batch that is not compressed.
pub fn raw(parts: &[Vec<u8>]) -> Batch {
    let lengths = parts.iter().map(|part| u32::try_from(part.len()).expect("small")).collect();
    Batch { codec: Codec::Raw, lengths, payload: parts.concat() }
}

fn thin(segments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    segments.iter().map(|segment| shorten(segment).expect("a segment")).collect()
}

/// Makes a batch of uncompressed segments, without a base and without offered chunks.
pub fn raw_segments(parts: &[Vec<u8>]) -> SegmentBatch {
    SegmentBatch::new(parts, None, Marks::default())
}
