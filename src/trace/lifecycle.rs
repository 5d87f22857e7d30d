//! Events of a module's life: the calls of notifiers, init and exit, and what is freed.

use elf_layout::Findings;
use elf_layout::bytes::printed;
use kernel::{Exit, Happening, Init, Kernel};

use super::event::{Address, Asked, Call, Event, Freed, Notified, Region, State, Step, Stop};
use super::regions::memory;
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
        }
    }

    /// What happened from event `from` of the history on: that the module is announced, and what follows when its load is over. What
    /// was said of that begins at finding `said_before`.
    pub fn after_load(
        &self,
        kernel: &Kernel,
        from: usize,
        said: &Findings,
        said_before: usize,
        refused: bool,
    ) -> (Vec<Event>, Vec<Event>) {
        let mut out = Vec::new();
        let step = |step: StepOf, reached| {
            let functions = step.functions(&kernel.config);
            Event::Step(Step { name: step.name(), functions, reached })
        };
        let happened = kernel.state.history.events.get(from..).unwrap_or_default();
        let (announced, rest): (Vec<_>, Vec<_>) = happened
            .iter()
            .partition(|event| event.happening == Happening::Notified(kernel::ModuleState::Coming));
        let announced = announced.into_iter().map(|event| self.event(kernel, &event.happening)).collect();
        out.push(step(StepOf::Init, !refused));
        let mut freed = false;
        for event in rest {
            if event.happening == Happening::InitFreed {
                freed = true;
                out.push(step(StepOf::FreeInit, true));
            }
            out.push(self.event(kernel, &event.happening));
        }
        for finding in said.iter().skip(said_before) {
            out.push(Event::Finding(FindingEntry::from(finding)));
            if finding.stops_here {
                out.push(Event::Stop(Stop {
                    step: StepOf::Init.name(),
                    errno: said.errno().map(|errno| errno.name()),
                    dmesg: said.dmesg().map(str::to_owned).collect(),
                }));
            }
        }
        if !freed {
            out.push(step(StepOf::FreeInit, false));
        }
        (announced, out)
    }

    fn event(&self, kernel: &Kernel, happening: &Happening) -> Event {
        event(kernel, &self.name, happening, Some(self))
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

/// One event of the history.
fn event(kernel: &Kernel, name: &[u8], happening: &Happening, life: Option<&Life>) -> Event {
    let module = printed(name).into_owned();
    let call = |function, addr: Option<u64>, returns| {
        Event::Call(Call { module: module.clone(), function, addr: addr.map(Address), returns })
    };
    let freed = |what, init_only: bool| {
        let regions = life.map(|life| life.regions.iter()).into_iter().flatten();
        let regions = regions.filter(|region| region.init == init_only);
        Event::Freed(Freed { module: module.clone(), what, regions: regions.cloned().collect() })
    };
    match happening {
        Happening::Notified(state) => {
            let notified = kernel.notifiers().into_iter();
            let notifiers =
                notified.map(|n| Notified { function: n.function, priority: n.priority }).collect();
            Event::State(State { module, state: state.name(), notifiers })
        }
        Happening::InitCalled(init) => {
            let returns = match init {
                Init::Returns(value) => value.to_string(),
                Init::Fails(errno) => format!("-{errno}"),
                Init::Crashes => String::from("crash"),
            };
            call("init", life.and_then(|life| life.init), Some(returns))
        }
        Happening::ExitCalled(exit) => {
            let returns = (*exit == Exit::Crashes).then(|| String::from("crash"));
            call("exit", life.and_then(|life| life.exit), returns)
        }
        Happening::InitFreed => freed("init", true),
        Happening::Freed => freed("all", false),
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
    for of in kernel.state.history.events.get(from..).unwrap_or_default() {
        let life = lives.iter().rev().find(|life| life.name == of.module);
        out.push(event(kernel, &of.module, &of.happening, life));
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
