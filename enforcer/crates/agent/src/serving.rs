//! Who answers the calls: one thread, and another one where that hangs.
//!
//! To look at a path can take as long as a server wants (FUSE, a network file system), and the agent may have such a
//! server. Then another thread goes on with the calls of all others, and the one that hangs ends with its call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    error::{AgentError, Result},
    held::Message,
    supervisor::Supervised,
};

/// How long a look at a path may take before another thread goes on.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const PAUSE: Duration = Duration::from_millis(250);
/// Threads that may hang at a time; the agent that has more keeps only itself waiting.
const THREADS: u64 = 64;

/// Which thread serves, and since when it has been looking at a path.
#[derive(Debug)]
pub struct Serving {
    start: Instant,
    generation: AtomicU64,
    /// Milliseconds after `start`, plus one; 0 while it is not looking.
    since: AtomicU64,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            generation: AtomicU64::new(0),
            since: AtomicU64::new(0),
        }
    }
}

/// A look at a path, for as long as it is held.
#[derive(Debug)]
pub struct Looking<'a>(&'a Serving, u64);

impl Serving {
    /// Says that the thread that serves looks at a path.
    pub fn looking(&self) -> Looking<'_> {
        let since = self.now() + 1;
        self.since.store(since, Ordering::Relaxed);
        Looking(self, since)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// Whether the thread hangs.
    fn hangs(&self) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != 0 && u128::from(self.now() + 1 - since.min(self.now() + 1)) > PATIENCE.as_millis()
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        // Not where another thread looks by now.
        let _ = (self.0.since).compare_exchange(self.1, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The end of serving.
#[derive(Debug)]
pub struct Served {
    ended: Receiver<()>,
    watched: Sender<()>,
    watch: JoinHandle<()>,
}

impl Served {
    /// Waits until no process is left that could call, and the threads have given up what they shared; one that hangs
    /// keeps it.
    pub fn wait(self) {
        // Without a sender all threads have broken down.
        let _ = self.ended.recv();
        drop(self.watched);
        let _ = self.watch.join();
    }
}

impl Supervised {
    /// Starts the thread that serves, and the one that watches it.
    ///
    /// # Errors
    ///
    /// A thread cannot be had.
    pub fn start_serving(self: Arc<Self>, holder: Sender<Message>) -> Result<Served> {
        let (end, ended) = mpsc::channel();
        let (watched, watch) = mpsc::channel();
        self.spawn_server(0, &holder, &end)?;
        let watch = thread::Builder::new()
            .name("watch".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                while watch.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    let generation = self.serving.generation.load(Ordering::Relaxed);
                    if !self.serving.hangs() || generation >= THREADS {
                        continue;
                    }
                    self.serving.since.store(0, Ordering::Relaxed);
                    self.serving
                        .generation
                        .store(generation + 1, Ordering::Relaxed);
                    if let Err(error) = self.spawn_server(generation + 1, &holder, &end) {
                        self.calls.fail(error);
                        return;
                    }
                }
            })
            .map_err(AgentError::Thread)?;
        Ok(Served {
            ended,
            watched,
            watch,
        })
    }

    fn spawn_server(
        self: &Arc<Self>,
        generation: u64,
        holder: &Sender<Message>,
        end: &Sender<()>,
    ) -> Result<()> {
        let mut resolver = self.sight.resolver()?;
        let (shared, holder, end) = (Arc::clone(self), holder.clone(), end.clone());
        let serve = move || {
            let end = End {
                shared: Some(shared),
                generation,
                tell: end,
            };
            if let Some(shared) = &end.shared {
                shared.serve(&mut resolver, &holder, || end.mine());
            }
        };
        thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(serve)
            .map(drop)
            .map_err(AgentError::Thread)
    }
}

/// Says that serving has ended when the thread that serves does, whatever the reason.
struct End {
    /// Given up before the word goes out.
    shared: Option<Arc<Supervised>>,
    generation: u64,
    tell: Sender<()>,
}

impl End {
    fn mine(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| {
            shared.serving.generation.load(Ordering::Relaxed) == self.generation
        })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mine = self.mine();
        self.shared = None;
        if mine {
            // Nobody waits where the run has failed.
            let _ = self.tell.send(());
        }
    }
}
