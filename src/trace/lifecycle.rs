//! Events of a module's life: the calls of notifiers, init and exit, and what is freed.

use elf_layout::Findings;
use elf_layout::bytes::printed;
use kernel::{Exit, Happening, Init, Kernel, ModuleState};

use super::event::{
    Address, Asked, Call, Event, Freed, Notified, Notifier, Protected, ProtectedPart, Region, State, Step,
    Stop,
};
use super::regions::{memory, protected};
use super::steps::StepOf;
use crate::document::{FindingEntry, unjudged};
use crate::load::Load;

/// What of a load its life tells of.
#[derive(Debug)]
pub struct Life {
    name: Box<[u8]>,
    init: Option<u64>,
    exit: Option<u64>,
    regions: Vec<Region>,
    /// What is read-only from the end of init on.
    protected: Vec<ProtectedPart>,
}

/// What happened after the bytes of a module were final.
#[derive(Debug)]
#[non_exhaustive]
pub struct After {
    /// The module was announced.
    pub announced: Vec<Event>,
    /// A load that is refused was undone.
    pub undone: Vec<Event>,
    /// Init was called, and what follows.
    pub rest: Vec<Event>,
}

impl Life {
    /// Of a module in memory.
    pub fn of(load: &Load<'_>) -> Self {
        let module = &load.module;
        Life {
            name: module.info.file.name().into(),
            init: module.init(),
            exit: module.exit(),
            regions: memory(&module.layout, Some(&module.placement)).regions,
            protected: protected(module, true),
        }
    }

    /// What happened from event `from` of the history on, when its bytes were final. What was said of that begins at finding
    /// `said_before`. `refused`: it was refused before.
    pub fn after_load(
        &self,
        kernel: &Kernel,
        from: usize,
        said: &Findings,
        said_before: usize,
        refused: bool,
    ) -> After {
        let step = |step: StepOf, reached| {
            let functions = step.functions(&kernel.config);
            Event::Step(Step { name: step.name(), functions, reached })
        };
        let happened = kernel.state.history.events.get(from..).unwrap_or_default();
        let (announced, later): (Vec<_>, Vec<_>) =
            happened.iter().partition(|event| event.happening == Happening::Notified(ModuleState::Coming));
        let mut teller = Teller { kernel, life: Some(self), going: false, init_freed: false };
        let announced = announced.into_iter().flat_map(|event| teller.events(event)).collect();
        if refused {
            let undone = later.into_iter().flat_map(|event| teller.events(event)).collect();
            let rest = [StepOf::Init, StepOf::FreeInit].map(|of| step(of, false)).into();
            return After { announced, undone, rest };
        }
        let mut rest = vec![step(StepOf::Init, true)];
        let mut findings: Vec<Event> = said
            .iter()
            .skip(said_before)
            .map(|finding| Event::Finding(FindingEntry::from(finding)))
            .collect();
        for event in later {
            if event.happening == Happening::InitFreed {
                rest.push(step(StepOf::FreeInit, true));
                let parts = self.protected.clone();
                rest.extend((!parts.is_empty()).then_some(Event::Protected(Protected { parts })));
            }
            rest.extend(teller.events(event));
            // They are of what init has returned.
            if matches!(event.happening, Happening::InitCalled(_)) {
                rest.append(&mut findings);
            }
        }
        rest.append(&mut findings);
        if said.iter().skip(said_before).any(|finding| finding.stops_here) {
            rest.push(Event::Stop(Stop {
                step: StepOf::Init.name(),
                errno: said.errno().map(|errno| errno.name()),
                dmesg: said.dmesg().map(str::to_owned).collect(),
            }));
        }
        if !teller.init_freed {
            rest.push(step(StepOf::FreeInit, false));
        }
        After { announced, undone: Vec::new(), rest }
    }

    /// All of its memory, before init is over.
    pub fn freed_all(&self) -> Freed {
        let module = printed(&self.name).into_owned();
        Freed { module, what: "all", regions: self.regions.clone() }
    }
}

/// The steps that a module without memory does not come to.
pub fn not_reached(kernel: &Kernel) -> Vec<Event> {
    let step = |step: StepOf| {
        let functions = step.functions(&kernel.config);
        Event::Step(Step { name: step.name(), functions, reached: false })
    };
    Vec::from([StepOf::Init, StepOf::FreeInit].map(step))
}

/// Tells of the history of one module.
struct Teller<'t> {
    kernel: &'t Kernel,
    life: Option<&'t Life>,
    /// Is it told that the module is GOING?
    going: bool,
    /// Is the memory of init free already?
    init_freed: bool,
}

impl Teller<'_> {
    /// One event of the history.
    fn events(&mut self, of: &kernel::Event) -> Vec<Event> {
        let module = printed(&of.module).into_owned();
        let state = |state: ModuleState| Event::State(State { module: module.clone(), state: state.name() });
        let call = |function, addr: Option<u64>, returns| {
            Event::Call(Call { module: module.clone(), function, addr: addr.map(Address), returns })
        };
        match of.happening {
            Happening::Notified(to) => {
                // complete_formation has made it COMING, delete_module has made it GOING before exit.
                let is_told = to == ModuleState::Coming || to == ModuleState::Going && self.going;
                let notified = self.kernel.notifiers().into_iter();
                let notifiers =
                    notified.map(|n| Notifier { function: n.function, priority: n.priority }).collect();
                let mut events = Vec::new();
                events.extend((!is_told).then(|| state(to)));
                events.push(Event::Notified(Notified {
                    module: module.clone(),
                    state: to.name(),
                    notifiers,
                }));
                events
            }
            Happening::InitCalled(init) => {
                let returns = match init {
                    Init::Returns(value) => value.to_string(),
                    Init::Fails(errno) => format!("-{errno}"),
                    Init::Crashes => String::from("crash"),
                };
                vec![call("init", self.life.and_then(|life| life.init), Some(returns))]
            }
            Happening::ExitCalled(exit) => {
                self.going = true;
                let returns = (exit == Exit::Crashes).then(|| String::from("crash"));
                vec![state(ModuleState::Going), call("exit", self.life.and_then(|life| life.exit), returns)]
            }
            Happening::InitFreed => {
                self.init_freed = true;
                vec![self.freed(module, "init", |region| region.init)]
            }
            Happening::Freed => {
                let only = self.init_freed;
                vec![self.freed(module, "all", |region| !(only && region.init))]
            }
        }
    }

    fn freed(&self, module: String, what: &'static str, is_freed: impl Fn(&Region) -> bool) -> Event {
        let regions = self.life.map_or(&[][..], |life| &life.regions).iter();
        Event::Freed(Freed {
            module,
            what,
            regions: regions.filter(|region| is_freed(region)).cloned().collect(),
        })
    }
}

/// What was asked of a kernel beside loading modules: what happened from event `from` of the history on.
pub fn asked(
    kernel: &Kernel,
    asked: Asked,
    is_removal: bool,
    from: usize,
    said: &Findings,
    lives: &[Life],
) -> Vec<Event> {
    let mut out = vec![Event::Asked(asked)];
    if is_removal {
        let step = StepOf::Unload;
        let functions = step.functions(&kernel.config);
        out.push(Event::Step(Step { name: step.name(), functions, reached: true }));
    }
    let mut going = false;
    for of in kernel.state.history.events.get(from..).unwrap_or_default() {
        let life = lives.iter().rev().find(|life| life.name == of.module);
        // What is removed was LIVE.
        let mut teller = Teller { kernel, life, going, init_freed: true };
        out.extend(teller.events(of));
        going = teller.going;
    }
    for finding in said.iter() {
        out.push(Event::Finding(FindingEntry::from(finding)));
    }
    if said.refused() {
        out.push(Event::Stop(Stop {
            step: StepOf::Unload.name(),
            errno: said.errno().map(|errno| errno.name()),
            dmesg: said.dmesg().map(str::to_owned).collect(),
        }));
    }
    out.extend(unjudged(said).into_iter().map(Event::Unjudged));
    out
}
