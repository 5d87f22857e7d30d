//! Verdicts of a kernel's own code: its `load_module` is executed on one file after the other, each from the same state.

use std::path::{Path, PathBuf};

use elf_layout::{Errno, Severity};
use kernel::taint::letters;
use run::boot::Report;
use run::machine::Cause;
use run::parameters::{EARLY, GIVEN, Told, is_name};
use run::system::Running;
use run::world::{Inits, Message};
use symres::LoadFlags;

use crate::check::Ending;
use crate::check::by_kernel::ByKernel;
use crate::error::Error;
use crate::input::read_decompressed;
use crate::kernel_source::cache::Cache;
use crate::load::Opened;
use crate::run::boot;
use crate::setup::RunningFacts;

/// Instructions that a load may take. A large module takes some ten million.
const BUDGET: u64 = 300_000_000;
/// Milliseconds in which a kernel does what it has put off.
const SETTLES: u64 = 100;
/// Words of a command line that change what loads, and that the machine cannot be told of.
const MINDED: [&str; 6] =
    ["ima_appraise", "kernel.modules_disabled", "lockdown", "lsm", "security", "percpu_alloc"];

/// What is to be known of a running kernel, as far as the machine can be told.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Does it lie where the machine's does?
    is_at_its_place: bool,
    /// What was said of it that the machine is not.
    differs: Option<String>,
    /// The words of its command line that the kernel's own code takes.
    given: Vec<String>,
    /// What the machine is told before it boots.
    told: Told,
}

impl Limits {
    /// Of what the options tell.
    pub fn of(facts: &RunningFacts) -> Self {
        let words: Vec<&str> = facts.cmdline.split_whitespace().collect();
        // What follows is for init.
        let words: Vec<&str> = words.into_iter().take_while(|word| *word != "--").collect();
        let is_one = |word: &str, names: &[&str]| {
            let name = word.split('=').next().unwrap_or_default();
            names.iter().any(|known| is_name(name, known))
        };
        let minded = words.iter().find(|word| is_one(word, &MINDED));
        let of = |names: &[&str]| -> Vec<String> {
            words.iter().filter(|word| is_one(word, names)).map(|word| (*word).to_owned()).collect()
        };
        let differs = [
            minded.map(|word| format!("{word} on the command line")),
            facts.secure_boot.then(|| "Secure Boot".into()),
            facts.tainted.filter(|taints| *taints != 0).map(|taints| format!("taints {taints}")),
            facts.memory.as_ref().map(|_| "its memory".into()),
        ];
        Limits {
            is_at_its_place: words.contains(&"nokaslr"),
            differs: differs.into_iter().flatten().next(),
            given: of(&GIVEN),
            told: told(facts),
        }
    }
}

/// What of a running system a machine can be told before it boots.
pub fn told(facts: &RunningFacts) -> Told {
    let words = facts.cmdline.split_whitespace().take_while(|word| *word != "--");
    let is_early = |word: &&str| {
        let name = word.split('=').next().unwrap_or_default();
        EARLY.iter().any(|known| is_name(name, known))
    };
    Told { words: words.filter(is_early).map(str::to_owned).collect(), capabilities: facts.cpu_caps.clone() }
}

/// A booted kernel that loads modules, each as if none was loaded before but those that it needs.
#[derive(Debug)]
pub struct Judge {
    kernel: Box<dyn Running>,
    limits: Limits,
    /// The modules that are loaded now, with their parameters: from a snapshot of their own if there are any.
    stand: Vec<(PathBuf, String)>,
    /// Why one of them is not.
    missing: Option<String>,
}

impl Judge {
    /// Boots the image in a file, so many times, or takes it up where a cache has it ([`boot()`]).
    ///
    /// # Errors
    ///
    /// [`Error`], if it cannot be booted.
    pub fn boot(
        image: &Path,
        limits: &Limits,
        count: usize,
        cache: Option<&Cache>,
    ) -> Result<(Vec<Judge>, Report), Error> {
        let (mut first, report) = boot(image, &limits.told, BUDGET, cache)?;
        for word in &limits.given {
            first.give_parameter(word).map_err(|stopped| {
                Error::unusable(
                    image,
                    format!("the kernel does not take {word} of its command line: {stopped}"),
                )
            })?;
        }
        let mut kernels: Vec<_> = (1..count).map(|_| first.fork()).collect();
        kernels.push(first);
        let judge = |mut kernel: Box<dyn Running>| {
            kernel.snapshot();
            Judge { kernel, limits: limits.clone(), stand: Vec::new(), missing: None }
        };
        Ok((kernels.into_iter().map(judge).collect(), report))
    }

    /// Goes back to the state in which these modules are loaded, and no other.
    fn stand_on(&mut self, before: &[(PathBuf, String)]) {
        if self.stand == before {
            return self.kernel.restore();
        }
        if !self.stand.is_empty() {
            self.kernel.forget();
        }
        self.kernel.restore();
        self.stand = before.to_vec();
        self.missing = None;
        if before.is_empty() {
            return;
        }
        // What their init functions do decides nothing for others, but hardware that is not there would make them fail.
        self.kernel.set_inits(Inits::Succeed);
        self.kernel.set_trust(Some(0));
        for (file, parameters) in before {
            let why = match read_decompressed(file).map(|bytes| self.kernel.insmod(&bytes, parameters)) {
                Ok(Ok(result)) if result >= 0 => continue,
                Ok(Ok(result)) => format!("{} is not loaded: {}", file.display(), errno_text(result)),
                Ok(Err(stopped)) => format!("{} is not loaded: {stopped}", file.display()),
                Err(error) => error.to_string(),
            };
            self.missing = Some(why);
            break;
        }
        // Init sections are given back late.
        if self.missing.is_none()
            && let Err(stopped) = self.kernel.sleep(SETTLES)
        {
            self.missing = Some(stopped.to_string());
        }
        self.kernel.set_inits(Inits::Run);
        self.kernel.set_trust(None);
        self.kernel.snapshot();
    }

    /// The verdict on a module, already decompressed, where others are loaded before. `opened` tells whether its signature is trusted: no
    /// certificate is in the machine's keyrings. `flags` are those of finit_module.
    pub fn judge(
        &mut self,
        before: &[(PathBuf, String)],
        opened: &Opened<'_>,
        bytes: &[u8],
        parameters: &str,
        flags: LoadFlags,
    ) -> ByKernel {
        if let Some(what) = &self.limits.differs {
            return ByKernel::undecided(format!("the machine is not told of {what}"));
        }
        self.stand_on(before);
        if let Some(missing) = &self.missing {
            return ByKernel::undecided(missing.clone());
        }
        let (told, begun) = (self.kernel.log().len(), self.kernel.executed());
        self.kernel.set_trust(trust(opened));
        let made = self.kernel.load_module(bytes, parameters, flags.bits());
        let mut judged = ByKernel::undecided("");
        judged.instructions = self.kernel.executed().wrapping_sub(begun);
        (judged.dmesg, judged.warnings) = lines(self.kernel.log().get(told..).unwrap_or_default());
        let (verdict, errno, stopped) = match made {
            Ok(0..) => (Ending::Good, None, None),
            Ok(result) => match errno(result) {
                Some(errno) => (Ending::Refused, Some(errno), None),
                None => (Ending::Undecided, None, Some(errno_text(result))),
            },
            Err(stopped) if stopped.cause == Cause::Kernel => (Ending::Oops, None, Some(stopped.to_string())),
            Err(stopped) => (Ending::Undecided, None, Some(stopped.to_string())),
        };
        (judged.verdict, judged.errno, judged.stopped) = (verdict, errno, stopped);
        if verdict == Ending::Good {
            judged.taints = self.kernel.taints().map(letters).unwrap_or_default();
        }
        if let Some(doubt) = self.doubt(&judged) {
            (judged.verdict, judged.errno, judged.stopped) = (Ending::Undecided, None, Some(doubt));
        }
        judged
    }

    /// What keeps the answer from being that of a real machine.
    fn doubt(&self, judged: &ByKernel) -> Option<String> {
        let asked = self.kernel.doubts().first().cloned();
        let is_far = |line: &String| line.contains("overflow in relocation");
        let moved = !self.limits.is_at_its_place && judged.dmesg.iter().any(is_far);
        let address =
            || "it depends on addresses, which are those of nokaslr here (--cmdline nokaslr)".into();
        asked.or_else(|| moved.then(address))
    }
}

/// What the kernel finds of whoever has signed a module, as far as the rules know.
fn trust(opened: &Opened<'_>) -> Option<i64> {
    /// -ENOKEY
    const NO_KEY: i64 = -126;
    opened.signature.pkcs7?;
    let of_signature = |code: &str| code.starts_with("SIG-");
    let refused = opened.said.iter().find(|f| f.severity == Severity::Error && of_signature(f.code));
    // What the verification itself finds, if it logs nothing.
    if let Some(found) = refused
        && matches!(found.code, "SIG-8" | "SIG-9" | "SIG-10")
        && found.dmesg.is_empty()
    {
        return found.errno.map(|errno| i64::from(errno.number()).wrapping_neg());
    }
    if refused.is_some() || opened.said.open_rules().iter().any(|rule| of_signature(rule.code)) {
        return None;
    }
    match &opened.unsigned {
        None => Some(0),
        Some(unsigned) => (unsigned.reason == "module with unavailable key").then_some(NO_KEY),
    }
}

/// The error in the result of a system call.
fn errno(result: i64) -> Option<Errno> {
    Errno::from_number(u16::try_from(result.checked_neg()?).ok()?)
}

fn errno_text(result: i64) -> String {
    errno(result).map_or_else(|| format!("the result is {result}"), |errno| errno.name().to_owned())
}

/// The lines of messages, without the reports of warnings, and which of them are the messages of warnings.
fn lines(messages: &[Message]) -> (Vec<String>, Vec<usize>) {
    #[derive(PartialEq)]
    enum At {
        Log,
        /// Behind the line that a warning begins with.
        Warning,
        Report,
    }
    let (mut out, mut warnings, mut at) = (Vec::new(), Vec::new(), At::Log);
    for message in messages {
        let text = String::from_utf8_lossy(&message.text);
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.contains("[ cut here ]") {
                at = At::Warning;
            } else if at == At::Warning && line.starts_with("WARNING: ") {
                at = At::Report;
            } else if line.contains("[ end trace ") {
                at = At::Log;
            } else if at != At::Report {
                if at == At::Warning {
                    warnings.push(out.len());
                }
                out.push(line.to_owned());
            }
        }
    }
    (out, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_warnings_are_known() {
        let message = |text: &str| Message { level: 4, time: 0, text: text.into(), ended: true };
        let log = [
            message("a"),
            message("------------[ cut here ]------------"),
            message("b\nc"),
            message("WARNING: CPU: 0 PID: 1 at f.c:1"),
        ];
        let rest =
            [message("Modules linked in:"), message("---[ end trace 0000000000000000 ]---"), message("d")];
        let log: Vec<_> = log.into_iter().chain(rest).collect();
        assert_eq!(lines(&log), (["a", "b", "c", "d"].map(String::from).to_vec(), vec![1, 2]));
    }

    #[test]
    fn what_the_machine_is_not_is_known() {
        let of =
            |cmdline: &str| Limits::of(&RunningFacts { cmdline: cmdline.into(), ..RunningFacts::default() });
        assert!(of("quiet nokaslr").is_at_its_place && of("quiet nokaslr").differs.is_none());
        assert!(!of("quiet").is_at_its_place);
        assert!(of("lockdown=integrity").differs.is_some());
        assert_eq!(of("quiet mitigations=off -- retbleed=off").told.words, ["mitigations=off"]);
        let given = of("module.sig-enforce nokaslr module_blacklist=a,b -- nomodule");
        assert_eq!(
            (given.given, given.differs),
            (vec!["module.sig-enforce".into(), "module_blacklist=a,b".into()], None)
        );
    }
}
