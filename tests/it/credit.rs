//! Both halves of a push between queues of any length: a half that cannot pass a message on does nothing else, as in
//! the program.
//!
//! An agent that reacts to nothing while a send waits, a proxy that processes one message at a time, two reading tasks
//! and two writing ones. No order of events may leave all of them waiting, and the messages that either side stores
//! stay within the credit of PROTOCOL 3.

use std::collections::VecDeque;

use ground::limits::{PUSH_REPLIES_MAX, PUSH_STEPS_OPEN, SEGMENT_BATCH_BYTES};
use protocol::push::{Agent, Opening, Proxy, Window};
use protocol::wire::{FromAgent, PushReply};

use crate::push_simulator::{Dice, Push, take};
use crate::space_view::{Files, Memory, Release, open, release};

/// The capacity of each queue, in messages.
#[derive(Debug, Clone, Copy)]
struct Queues {
    /// Messages on the link, each way.
    link: usize,
    /// Messages ready to be sent, and jobs being compressed.
    fed: usize,
    /// Messages that the proxy has read and not processed.
    heard: usize,
    /// Replies not yet sent, or read and not yet handled; none where credit alone limits them.
    replies: Option<usize>,
}

/// The state of a push.
struct Conversation<'a> {
    push: Push<'a>,
    queues: Queues,
    agent: Agent,
    proxy: Proxy,
    memory: Memory,
    /// Messages that the agent must send before anything else.
    sending: VecDeque<FromAgent>,
    feeding: VecDeque<Option<FromAgent>>,
    fed: VecDeque<Option<FromAgent>>,
    up: VecDeque<FromAgent>,
    heard: VecDeque<FromAgent>,
    /// Replies that the proxy must send before it processes anything else.
    saying: VecDeque<PushReply>,
    said: VecDeque<PushReply>,
    down: VecDeque<PushReply>,
    inbox: VecDeque<PushReply>,
    committed: bool,
    /// The most that either side stored.
    held_max: usize,
}

fn weight(replies: &VecDeque<PushReply>) -> usize {
    replies.iter().map(PushReply::weight).sum()
}

impl<'a> Conversation<'a> {
    fn begin(push: Push<'a>, release: &Release, window: Window, mut memory: Memory, queues: Queues) -> Self {
        let opening = push.opening.clone();
        let (agent, begin) =
            Agent::with_window(window, open(release, false), release.segments.clone(), opening);
        let (proxy, replies) = Proxy::open(begin, &mut memory).expect("an honest agent");
        let mut conversation = Self {
            push,
            queues,
            agent,
            proxy,
            memory,
            sending: VecDeque::new(),
            feeding: VecDeque::new(),
            fed: VecDeque::new(),
            up: VecDeque::new(),
            heard: VecDeque::new(),
            saying: replies.into(),
            said: VecDeque::new(),
            down: VecDeque::new(),
            inbox: VecDeque::new(),
            committed: false,
            held_max: 0,
        };
        let mut dice = Dice(1);
        let view = &mut conversation.push.view(&mut conversation.feeding, &mut dice);
        let first = conversation.agent.begin(view).expect("a whole input");
        take(first, &mut conversation.sending);
        conversation
    }

    /// Lets one of the participants do one thing; returns whether it could.
    fn step(&mut self, who: usize, dice: &mut Dice) -> bool {
        let Queues { link, fed, heard, replies } = self.queues;
        let replies = replies.unwrap_or(usize::MAX);
        match who {
            // The agent sends what it must; otherwise it handles a reply; otherwise it sends what is ready.
            0 if !self.sending.is_empty() => pass(&mut self.sending, &mut self.up, link),
            0 if !self.inbox.is_empty() => {
                let reply = self.inbox.pop_front().expect("there is one");
                let view = &mut self.push.view(&mut self.feeding, dice);
                let actions = self.agent.receive(reply, view).expect("an honest proxy");
                self.committed |= take(actions, &mut self.sending);
                true
            }
            0 => match self.fed.pop_front() {
                Some(Some(message)) => {
                    self.sending.push_back(message);
                    true
                }
                Some(None) => {
                    let view = &mut self.push.view(&mut self.feeding, dice);
                    let actions = self.agent.chunks_sent(view).expect("a whole input");
                    take(actions, &mut self.sending);
                    true
                }
                None => false,
            },
            // The feeder.
            1 => pass(&mut self.feeding, &mut self.fed, fed),
            // The link, the proxy's reader.
            2 => pass(&mut self.up, &mut self.heard, heard),
            // The proxy sends its replies; otherwise it processes the next message.
            3 if !self.saying.is_empty() => pass(&mut self.saying, &mut self.said, replies),
            3 => {
                let Some(message) = self.heard.pop_front().filter(|_| !self.proxy.is_finished()) else {
                    return false;
                };
                let said = self.proxy.receive(message, &mut self.memory).expect("an honest agent");
                self.saying.extend(said);
                true
            }
            // The proxy's writer, the link.
            4 => pass(&mut self.said, &mut self.down, link),
            // The agent's reader.
            _ => pass(&mut self.down, &mut self.inbox, replies),
        }
    }

    /// Continues in random order until the release is committed; returns false if nothing can continue.
    fn ends(&mut self, dice: &mut Dice) -> bool {
        while !self.committed {
            let first = dice.below(6);
            if !(first..first + 6).any(|who| self.step(who % 6, dice)) {
                return false;
            }
            self.held_max = self.held_max.max(weight(&self.said)).max(weight(&self.inbox));
        }
        true
    }
}

/// Moves one item if there is room.
fn pass<T>(from: &mut VecDeque<T>, to: &mut VecDeque<T>, room: usize) -> bool {
    if to.len() >= room {
        return false;
    }
    let Some(one) = from.pop_front() else { return false };
    to.push_back(one);
    true
}

/// Returns a release of many files of one chunk each, all nearly equal to those of another.
fn changed(files: u32, edit: u16) -> Release {
    let chunk = |file: u32| u16::try_from(150 + file % 140).expect("few") + 300 * edit;
    let files: Files =
        (0..files).map(|file| (file, vec![chunk(file), chunk(file + 17), chunk(file + 31)])).collect();
    release(&files)
}

/// Returns windows from the smallest to the default.
fn windows() -> impl Iterator<Item = Window> {
    let steps = [1, 2, PUSH_STEPS_OPEN];
    steps
        .into_iter()
        .flat_map(|steps| [1, 3_000, SEGMENT_BATCH_BYTES].map(|step_bytes| Window { steps, step_bytes }))
}

#[test]
fn no_queue_and_no_window_is_too_small() {
    let (old, new) = (changed(60, 0), changed(60, 1));
    let mut held_max = 0;
    for window in windows() {
        for seed in 1..=2 {
            for (link, fed, heard) in [(1, 1, 1), (1, 4, 8), (3, 1, 1), (1000, 4, 8)] {
                let queues = Queues { link, fed, heard, replies: None };
                let memory = Memory::holding(&old);
                let pushes = [Push::new(&new, Opening::Short), Push::based(&new, &old, &memory)];
                for push in pushes {
                    let mut dice = Dice(seed);
                    let mut talk = Conversation::begin(push, &new, window, memory.clone(), queues);
                    assert!(talk.ends(&mut dice), "seed {seed}, {window:?}, {queues:?}: all wait");
                    held_max = held_max.max(talk.held_max);
                }
            }
        }
    }
    println!("seeds 1 and 2; at most {held_max} B of replies were held");
    assert!(held_max <= PUSH_REPLIES_MAX);
}

#[test]
fn queues_that_stop_the_reading_would_leave_all_waiting() {
    // Proves that this simulation finds a deadlock where there is one.
    let (old, new) = (changed(60, 0), changed(60, 1));
    let window = Window { steps: PUSH_STEPS_OPEN, step_bytes: 1 };
    let stuck = (1..=12).any(|seed| {
        let queues = Queues { link: 1, fed: 1, heard: 1, replies: Some(1) };
        let push = Push::new(&new, Opening::Short);
        let mut talk = Conversation::begin(push, &new, window, Memory::holding(&old), queues);
        !talk.ends(&mut Dice(seed))
    });
    assert!(stuck);
}
