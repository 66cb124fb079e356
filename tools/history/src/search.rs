//! Is there an order of the operations on one file that explains all answers?
//!
//! The search is Wing and Gong's with Lowe's memory ("Testing for linearizability", 2017): operations are put in order
//! one after the other; one may be next if no other that is left was answered before it was called. What was
//! reached once, the same set in order and the same state of the file, is not tried again.
//!
//! Three things keep it short, none of which changes the verdict:
//! * What only looks and fits the present state is taken at once: it can only stand in the way later.
//! * Versions grow, so changes whose versions are known come in the order of these.
//! * What may be left out is put in only right before an operation that is not possible without it; of several that
//!   would do the same, the first.
//!
//! A lifetime that ends is an operation, too, which nobody called: it may come in at its end or at any time after
//! it, or not at all.

use std::collections::BTreeSet;

use crate::history::{Call, Operation, Outcome, Tag, Version};

/// Configurations after which the search is given up: a second or so.
const CONFIGURATIONS_MAX: usize = 300_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    NotLinearizable,
    Undecided,
}

/// Judges the calls on one file.
pub(crate) fn judge(calls: &[Call]) -> Verdict {
    Search::new(steps(calls)).run()
}

/// What an operation does to the file, and what it tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    SeesFile {
        contents: Tag,
        version: Version,
    },
    SeesVersion {
        version: Version,
    },
    SeesNothing,
    Puts {
        contents: Tag,
        expected: Option<Version>,
        version: Option<Version>,
    },
    Removes {
        expected: Option<Version>,
        version: Option<Version>,
    },
    Expires {
        contents: Tag,
    },
    /// The answer contradicts itself.
    Impossible,
}

impl Effect {
    fn version_met(&self) -> Option<Version> {
        match self {
            Self::SeesVersion { version } | Self::SeesFile { version, .. } => Some(*version),
            Self::Puts { expected, .. } | Self::Removes { expected, .. } => *expected,
            Self::SeesNothing | Self::Expires { .. } | Self::Impossible => None,
        }
    }

    fn version_made(&self) -> Option<Version> {
        match self {
            Self::Puts { version, .. } | Self::Removes { version, .. } => *version,
            _ => None,
        }
    }
}

/// An operation that is to be put in order. Without an end it may be left out.
#[derive(Clone, Copy, Debug)]
struct Step {
    effect: Effect,
    begin: u64,
    end: Option<u64>,
    gives_lifetime: bool,
    /// It meets a version of which the change is known: no other change's can turn out to be this one.
    meets_told_version: bool,
}

impl Step {
    fn new(effect: Effect, begin: u64, end: Option<u64>) -> Self {
        Self { effect, begin, end, gives_lifetime: false, meets_told_version: false }
    }
}

/// The file between two operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// `None` if there is no file.
    contents: Option<Tag>,
    /// `None` as long as nobody was told; then it is `floor` or more.
    version: Option<Version>,
    /// Later changes have versions above this.
    floor: Version,
    /// What the next operation must need, or the last one might as well have been left out.
    needed: Option<Need>,
}

/// What an operation that may be left out is put in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// That there is no file.
    Nothing,
    /// That there is one.
    File,
    /// That it has a version that nobody told, or this very lifetime: there was another file before.
    OtherFile,
}

impl Need {
    /// What this step brings about that another one may need; `None` if it must be put in anyway, because it was
    /// answered, or its version was told.
    fn of(step: &Step, before: &State) -> Option<Self> {
        match step.effect {
            _ if step.end.is_some() || step.effect.version_made().is_some() => None,
            Effect::Removes { .. } | Effect::Expires { .. } => Some(Self::Nothing),
            Effect::Puts { .. } if before.contents.is_some() => Some(Self::OtherFile),
            Effect::Puts { .. } => Some(Self::File),
            _ => None,
        }
    }

    /// Whether the operation, which is possible now, would not be without it.
    fn is_of(self, effect: &Effect) -> bool {
        match effect {
            Effect::SeesNothing | Effect::Puts { expected: Some(Version(0)), .. } => self == Self::Nothing,
            Effect::Removes { expected: None, .. } => self == Self::File,
            Effect::Puts { expected: None, .. } => false,
            _ => self != Self::Nothing,
        }
    }
}

impl State {
    /// The state after the operation, if it can be next.
    fn after(mut self, effect: Effect) -> Option<Self> {
        match effect {
            Effect::SeesFile { contents, version } => {
                (self.contents == Some(contents)).then_some(())?;
                self.has_version(version)?;
            }
            Effect::SeesVersion { version } => self.has_version(version)?,
            Effect::SeesNothing => self.contents.is_none().then_some(())?,
            Effect::Puts { contents, expected, version } => {
                match expected {
                    None => {}
                    Some(Version(0)) => self.contents.is_none().then_some(())?,
                    Some(expected) => self.has_version(expected)?,
                }
                self.take_version(version)?;
                self.contents = Some(contents);
            }
            Effect::Removes { expected, version } => {
                self.contents?;
                if let Some(expected) = expected {
                    self.has_version(expected)?;
                }
                self.take_version(version)?;
                (self.contents, self.version) = (None, None);
            }
            Effect::Expires { contents } => {
                (self.contents == Some(contents)).then_some(())?;
                (self.contents, self.version) = (None, None);
            }
            Effect::Impossible => return None,
        }
        self.needed = None;
        Some(self)
    }

    /// The file is there and its version is this one, or may be.
    fn has_version(&mut self, version: Version) -> Option<()> {
        self.contents?;
        match self.version {
            Some(known) => (known == version).then_some(()),
            None => {
                (version >= self.floor).then_some(())?;
                (self.version, self.floor) = (Some(version), version);
                Some(())
            }
        }
    }

    /// A change takes the next version, which may be unknown.
    fn take_version(&mut self, version: Option<Version>) -> Option<()> {
        if let Some(version) = version {
            (version > self.floor).then_some(())?;
        }
        self.version = version;
        self.floor = version.unwrap_or(Version(self.floor.0 + 1));
        Some(())
    }
}

/// The calls as steps, with those that end lifetimes, and without those that neither do nor tell anything.
fn steps(calls: &[Call]) -> Vec<Step> {
    let mut steps = Vec::new();
    for call in calls {
        let found = call.operation.contents().and_then(|tag| version_found(calls, tag));
        // What was read was done, whatever its client was told.
        let Some(effect) = effect(call, found) else { continue };
        let gives_lifetime = call.operation.lifetime().is_some();
        steps.push(Step { gives_lifetime, ..Step::new(effect, call.invoked, call.end()) });
        if let (Some(contents), Some(lifetime)) = (call.operation.contents(), call.operation.lifetime())
            && matches!(effect, Effect::Puts { .. })
        {
            let begin = call.invoked.saturating_add(lifetime);
            steps.push(Step::new(Effect::Expires { contents }, begin, None));
        }
    }
    let made: BTreeSet<Version> = steps.iter().filter_map(|step| step.effect.version_made()).collect();
    for step in &mut steps {
        step.meets_told_version = step.effect.version_met().is_some_and(|version| made.contains(&version));
    }
    steps
}

fn version_found(calls: &[Call], tag: Tag) -> Option<Version> {
    calls.iter().find_map(|call| match call.outcome {
        Outcome::Found { version, contents } if contents == tag => Some(version),
        _ => None,
    })
}

/// `None` for what has none: a failed call, a read of unknown outcome.
fn effect(call: &Call, found: Option<Version>) -> Option<Effect> {
    let sees_version = |present: Version| match present {
        _ if call.operation.expected() == Some(present) => Effect::Impossible,
        Version(0) => Effect::SeesNothing,
        version => Effect::SeesVersion { version },
    };
    let change = |version: Option<Version>| match call.operation {
        Operation::Read => None,
        Operation::Write { contents, .. } => Some(Effect::Puts { contents, expected: None, version }),
        Operation::Cas { expected, contents, .. } => {
            Some(Effect::Puts { contents, expected: Some(expected), version })
        }
        Operation::Delete { expected } => Some(Effect::Removes { expected, version }),
    };
    match call.outcome {
        Outcome::Found { version, contents } => Some(Effect::SeesFile { contents, version }),
        Outcome::Missing => Some(Effect::SeesNothing),
        Outcome::Mismatch { present } => Some(sees_version(present)),
        Outcome::Changed { version } => change(version.or(found)),
        Outcome::Failed => None,
        Outcome::Unknown => change(found),
    }
}

/// Whether two steps that may both be left out, and may both be put in for ever, are as good as each other: nobody read
/// the contents of either.
fn does_the_same(one: &Step, other: &Step) -> bool {
    let unread = |effect| match effect {
        Effect::Puts { expected, version, .. } => Some(Effect::Puts { contents: Tag(0), expected, version }),
        Effect::Removes { .. } => Some(effect),
        _ => None,
    };
    !one.gives_lifetime
        && !other.gives_lifetime
        && unread(one.effect).is_some_and(|effect| Some(effect) == unread(other.effect))
}

/// The events of all steps in a doubly linked list, from which the steps in order are taken out.
struct Search {
    steps: Vec<Step>,
    /// Event 0 is the list's head; 2 s + 1 is the beginning of step s, 2 s + 2 its end.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Steps whose versions are known, in the order of these.
    by_version: Vec<usize>,
    /// How many of them are in order.
    versions_taken: usize,
    in_order: Vec<u64>,
    ends_left: usize,
    state: State,
    reached: BTreeSet<(Vec<u64>, State)>,
}

/// A place where the search can go on in several ways.
struct Branch {
    candidates: Vec<usize>,
    tried: usize,
    /// How it was got here: the step, and the state before it.
    by: Option<(usize, State)>,
}

impl Search {
    fn new(steps: Vec<Step>) -> Self {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            events.push((step.begin, false, 2 * number + 1));
            // What begins when another ends is at the same time as it.
            events.extend(step.end.map(|end| (end, true, 2 * number + 2)));
        }
        events.sort_unstable();
        let mut next = vec![0; 2 * steps.len() + 1];
        let mut previous = next.clone();
        let mut last = 0;
        for (_, _, event) in events {
            (next[last], previous[event]) = (event, last);
            last = event;
        }
        (next[last], previous[0]) = (0, last);
        let mut by_version: Vec<usize> =
            (0..steps.len()).filter(|step| steps[*step].effect.version_made().is_some()).collect();
        by_version.sort_by_key(|step| steps[*step].effect.version_made());
        Self {
            next,
            previous,
            by_version,
            versions_taken: 0,
            in_order: vec![0; steps.len().div_ceil(64)],
            ends_left: steps.iter().filter(|step| step.end.is_some()).count(),
            state: State::default(),
            reached: BTreeSet::new(),
            steps,
        }
    }

    fn run(mut self) -> Verdict {
        let mut branches = vec![Branch { candidates: self.candidates(), tried: 0, by: None }];
        while self.ends_left > 0 {
            let Some(branch) = branches.last_mut() else { return Verdict::NotLinearizable };
            let Some(step) = branch.candidates.get(branch.tried).copied() else {
                if let Some((step, before)) = branch.by {
                    self.put_back(step, before);
                }
                branches.pop();
                continue;
            };
            branch.tried += 1;
            let before = self.state;
            self.take(step);
            if !self.reached.insert((self.in_order.clone(), self.state)) {
                self.put_back(step, before);
                continue;
            }
            if self.reached.len() > CONFIGURATIONS_MAX {
                return Verdict::Undecided;
            }
            branches.push(Branch { candidates: self.candidates(), tried: 0, by: Some((step, before)) });
        }
        Verdict::Linearizable
    }

    /// The steps that can be next: those that must come before those that may.
    fn candidates(&self) -> Vec<usize> {
        let (mut must, mut may) = (Vec::new(), Vec::new());
        let mut event = self.next[0];
        // Even numbers are ends: whatever begins behind the first of them comes after it.
        while event % 2 == 1 {
            let number = event / 2;
            event = self.next[event];
            let step = &self.steps[number];
            let Some(after) = self.state.after(step.effect) else { continue };
            if step.meets_told_version && self.state.version.is_none() && self.state.contents.is_some() {
                continue;
            }
            if self.state.needed.is_some_and(|needed| !needed.is_of(&step.effect)) {
                continue;
            }
            let only_looks = match step.effect {
                Effect::SeesFile { .. } | Effect::SeesNothing => true,
                // The version may become known by it, which it would not be before another's.
                Effect::SeesVersion { .. } => after.version == self.state.version,
                _ => false,
            };
            if only_looks {
                return vec![number];
            }
            if step.effect.version_made().is_some()
                && self.by_version.get(self.versions_taken) != Some(&number)
            {
                continue;
            }
            if Need::of(step, &self.state).is_none() {
                must.push(number);
            } else if !may.iter().any(|other: &usize| does_the_same(&self.steps[*other], step)) {
                may.push(number);
            }
        }
        must.extend(may);
        must
    }

    fn take(&mut self, number: usize) {
        let step = self.steps[number];
        let needed = Need::of(&step, &self.state);
        self.state = self.state.after(step.effect).expect("a candidate");
        self.state.needed = needed;
        self.in_order[number / 64] |= 1 << (number % 64);
        self.versions_taken += usize::from(step.effect.version_made().is_some());
        self.unlink(2 * number + 1);
        if step.end.is_some() {
            self.unlink(2 * number + 2);
            self.ends_left -= 1;
        }
    }

    /// Undoes the last [`Self::take`].
    fn put_back(&mut self, number: usize, before: State) {
        let step = self.steps[number];
        self.state = before;
        self.in_order[number / 64] &= !(1 << (number % 64));
        self.versions_taken -= usize::from(step.effect.version_made().is_some());
        if step.end.is_some() {
            self.link(2 * number + 2);
            self.ends_left += 1;
        }
        self.link(2 * number + 1);
    }

    fn unlink(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        (self.next[previous], self.previous[next]) = (next, previous);
    }

    fn link(&mut self, event: usize) {
        let (previous, next) = (self.previous[event], self.next[event]);
        (self.next[previous], self.previous[next]) = (event, event);
    }
}
