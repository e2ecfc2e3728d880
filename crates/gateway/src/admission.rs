//! How many requests run at once, who waits, and who is turned away: so many run, so many more wait in line, and when the
//! line is full too, the project that takes most of the server makes room for those that take less.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Bounds of the whole server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AdmissionLimits {
    /// Most requests that run.
    pub(crate) running_max: usize,
    /// Most requests that wait.
    pub(crate) waiting_max: usize,
    /// How long one waits at most.
    pub(crate) wait: Duration,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shed {
    /// The line is full, and nobody in it takes more than this request's project.
    Full,
    /// It waited as long as it may.
    TooLong,
    /// It stood in line and made room for a project that takes less.
    Displaced,
}

impl Shed {
    /// The word in the metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Shed::Full => "full",
            Shed::TooLong => "too_long",
            Shed::Displaced => "displaced",
        }
    }
}

/// The door of the server.
pub(crate) struct Admission {
    state: Mutex<State>,
}

/// Leave to run; given back when it is dropped.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    project: Arc<str>,
    /// Whether there is something to give back.
    is_held: bool,
}

type Waiter = oneshot::Sender<Result<Admitted, Shed>>;

struct State {
    limits: AdmissionLimits,
    running: usize,
    waiting: usize,
    projects: HashMap<Arc<str>, Project>,
    /// Which project stands in line since when: the lower number is first among equals.
    turns: u64,
}

#[derive(Default)]
struct Project {
    running: usize,
    /// Oldest first, each with its number.
    waiters: VecDeque<(u64, Waiter)>,
}

impl Project {
    fn load(&self) -> usize {
        self.running + self.waiters.len()
    }
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Admission {
            state: Mutex::new(State {
                limits,
                running: 0,
                waiting: 0,
                projects: HashMap::new(),
                turns: 0,
            }),
        })
    }

    /// Takes other bounds. Nobody who runs or waits is turned away for it.
    pub(crate) fn set_limits(self: &Arc<Self>, limits: AdmissionLimits) {
        self.lock().limits = limits;
        self.let_in();
    }

    /// Requests that run, and that wait.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let mut state = self.lock();
        state.tidy();
        (state.running as u64, state.waiting as u64)
    }

    /// Leave to run for a request of `project`, at once or after waiting in line.
    pub(crate) async fn admit(self: &Arc<Self>, project: &str) -> Result<Admitted, Shed> {
        let (turn, wait, displaced) = {
            let mut state = self.lock();
            if state.running < state.limits.running_max && state.waiting == 0 {
                let project = state.start(project);
                return Ok(self.admitted(project));
            }
            let displaced = state.make_room(project)?;
            let (sender, turn) = oneshot::channel();
            state.queue(project, sender);
            (turn, state.limits.wait, displaced)
        };
        // Outside of the lock: the one who is told may have gone.
        if let Some(displaced) = displaced {
            let _ = displaced.send(Err(Shed::Displaced));
        }
        // Between the look and the line somebody may have left.
        self.let_in();
        match tokio::time::timeout(wait, turn).await {
            Ok(Ok(answer)) => answer,
            // The one who stands in line is forgotten when its turn comes.
            Ok(Err(_)) | Err(_) => {
                self.lock().tidy();
                Err(Shed::TooLong)
            }
        }
    }

    fn admitted(self: &Arc<Self>, project: Arc<str>) -> Admitted {
        Admitted {
            admission: Arc::clone(self),
            project,
            is_held: true,
        }
    }

    /// Lets in those whose turn it is.
    fn let_in(self: &Arc<Self>) {
        loop {
            let Some((project, waiter)) = self.lock().next() else {
                return;
            };
            if let Err(Ok(mut unclaimed)) = waiter.send(Ok(self.admitted(project))) {
                // Its client has gone.
                unclaimed.give_back();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start(&mut self, project: &str) -> Arc<str> {
        let project = self.name(project);
        self.running += 1;
        self.projects
            .entry(Arc::clone(&project))
            .or_default()
            .running += 1;
        project
    }

    fn name(&self, project: &str) -> Arc<str> {
        match self.projects.get_key_value(project) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(project),
        }
    }

    /// A place in line for `project`. Where there is none, the newest request in line of the project that takes most
    /// leaves it, if that takes more than this one would.
    fn make_room(&mut self, project: &str) -> Result<Option<Waiter>, Shed> {
        self.tidy();
        if self.waiting < self.limits.waiting_max {
            return Ok(None);
        }
        let own = self.projects.get(project).map_or(0, Project::load);
        let heaviest = self
            .projects
            .iter_mut()
            .filter(|(_, other)| !other.waiters.is_empty())
            .max_by_key(|(_, other)| other.load());
        match heaviest {
            Some((name, other)) if **name != *project && other.load() > own + 1 => {
                let displaced = other.waiters.pop_back();
                self.waiting -= usize::from(displaced.is_some());
                Ok(displaced.map(|(_, waiter)| waiter))
            }
            _ => Err(Shed::Full),
        }
    }

    fn queue(&mut self, project: &str, waiter: Waiter) {
        let name = self.name(project);
        let turn = self.turns;
        self.turns += 1;
        self.waiting += 1;
        let project = self.projects.entry(name).or_default();
        project.waiters.push_back((turn, waiter));
    }

    /// The next one to run: of the project that runs least, and among those the one that has waited longest.
    fn next(&mut self) -> Option<(Arc<str>, Waiter)> {
        if self.running >= self.limits.running_max {
            return None;
        }
        let (name, project) = self
            .projects
            .iter_mut()
            .filter(|(_, project)| !project.waiters.is_empty())
            .min_by_key(|(_, project)| {
                (
                    project.running,
                    project.waiters.front().map(|(turn, _)| *turn),
                )
            })?;
        let (_, waiter) = project.waiters.pop_front()?;
        project.running += 1;
        let name = Arc::clone(name);
        self.running += 1;
        self.waiting -= 1;
        Some((name, waiter))
    }

    fn end(&mut self, project: &str) {
        self.running = self.running.saturating_sub(1);
        if let Some(known) = self.projects.get_mut(project) {
            known.running = known.running.saturating_sub(1);
            if known.load() == 0 {
                self.projects.remove(project);
            }
        }
    }

    /// Takes those out of the line who have gone.
    fn tidy(&mut self) {
        let mut waiting = 0;
        self.projects.retain(|_, project| {
            project.waiters.retain(|(_, waiter)| !waiter.is_closed());
            waiting += project.waiters.len();
            project.load() > 0
        });
        self.waiting = waiting;
    }
}

impl Admitted {
    fn give_back(&mut self) {
        if std::mem::take(&mut self.is_held) {
            self.admission.lock().end(&self.project);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.is_held {
            self.give_back();
            self.admission.let_in();
        }
    }
}

#[cfg(test)]
mod tests;
