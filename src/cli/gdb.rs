//! gdb's remote protocol, for a machine that runs a module. The protocol has a thread of its own; the machine serves what it asks while
//! it has stopped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gdbstub::arch::{Arch, Registers};
use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{DisconnectReason, GdbStub, SingleThreadStopReason};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
    SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{Breakpoints, BreakpointsOps, SwBreakpoint, SwBreakpointOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use kmodld::Error;
use run::debugger::{Debugged, Debugger, Then, Why};

use super::report;

/// How long the protocol waits for the machine before it looks whether gdb has said something.
const TURN: Duration = Duration::from_millis(10);
/// Bytes up to which memory is read at once, so that what is readable of a longer piece can be told.
const PAGE: usize = 4096;

/// The address of `--gdb`: `:PORT`, or one of this machine alone.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("localhost").filter(|rest| rest.starts_with(':')).unwrap_or(text);
    let read = match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().ok(),
    };
    let address = read.ok_or("give :PORT or 127.0.0.1:PORT; port 0 takes one that is free")?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ok(address),
        IpAddr::V6(ip) if ip.is_loopback() => Ok(address),
        _ => Err(
            "whoever reaches the port controls the run, so only addresses of this machine are taken: give \
                  :PORT"
                .into(),
        ),
    }
}

/// How the run has ended, told to gdb as its exit code.
pub type Ended = Arc<AtomicU8>;

/// Waits for gdb at an address. It is asked for where the module's init function is called.
pub fn listen(address: SocketAddr, ended: &Ended) -> Result<Box<dyn Debugger>, Error> {
    let refused = |error: io::Error| Error::Usage(format!("--gdb {address}: cannot listen there: {error}"));
    let listener = TcpListener::bind(address).map_err(refused)?;
    let at = listener.local_addr().map_err(refused)?;
    report::note(&format!("gdb: listening on {at}"));
    Ok(Box::new(Server { listener, at, ended: ended.clone(), interrupts: Arc::default(), link: None }))
}

/// The machine's side.
#[derive(Debug)]
struct Server {
    listener: TcpListener,
    at: SocketAddr,
    ended: Ended,
    interrupts: Arc<AtomicBool>,
    link: Option<Link>,
}

/// A gdb that is there.
#[derive(Debug)]
struct Link {
    stops: Sender<Why>,
    asks: Receiver<Ask>,
    thread: JoinHandle<()>,
}

/// What is done to a machine that has stopped.
type Act = dyn FnOnce(&mut dyn Debugged) + Send;

/// What the protocol asks the machine.
enum Ask {
    Do(Box<Act>),
    Go(Then),
}

impl Server {
    fn meet(&self, machine: &dyn Debugged) -> io::Result<Link> {
        report::note(&format!(
            "gdb: waiting at {} ({:#x}); in gdb: target remote {}",
            machine.text(machine.pc()),
            machine.pc(),
            self.at
        ));
        let (stream, _) = self.listener.accept()?;
        let ((stops, told), (asking, asks)) = (channel(), channel());
        let mut client = Client {
            asks: asking,
            told,
            interrupts: self.interrupts.clone(),
            ended: self.ended.clone(),
            target: machine.target(),
        };
        let thread = thread::Builder::new().name("gdb".into()).spawn(move || {
            let then = match GdbStub::new(stream).run_blocking::<Loop>(&mut client) {
                Ok(DisconnectReason::Kill) => Then::Quit,
                Ok(_) => Then::Leave,
                Err(error) => {
                    report::note(&format!("gdb: {error}; the run goes on without it"));
                    Then::Leave
                }
            };
            // The machine may have come to its end.
            client.asks.send(Ask::Go(then)).ok();
        })?;
        Ok(Link { stops, asks, thread })
    }
}

impl Debugger for Server {
    fn stopped(&mut self, machine: &mut dyn Debugged, why: Why) -> Then {
        self.interrupts.store(false, Ordering::Relaxed);
        match &self.link {
            // What has gone away may have left an answer.
            Some(link) => drop(link.stops.send(why)),
            None if why == Why::End => return Then::Leave,
            None => match self.meet(machine) {
                Ok(link) => self.link = Some(link),
                Err(error) => {
                    report::note(&format!("gdb: {error}; the run goes on without it"));
                    return Then::Leave;
                }
            },
        }
        let Some(link) = &self.link else { return Then::Leave };
        loop {
            match link.asks.recv() {
                Ok(Ask::Do(act)) => act(machine),
                Ok(Ask::Go(then)) => return then,
                Err(_) => return Then::Leave,
            }
        }
    }

    fn interrupts(&self) -> bool {
        self.interrupts.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    /// gdb is told of the end.
    fn drop(&mut self) {
        if let Some(Link { stops, asks, thread }) = self.link.take() {
            drop((stops, asks));
            thread.join().ok();
        }
    }
}

/// The protocol's side.
struct Client {
    asks: Sender<Ask>,
    told: Receiver<Why>,
    interrupts: Arc<AtomicBool>,
    ended: Ended,
    target: &'static str,
}

impl Client {
    /// Has the machine do something.
    fn ask<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut dyn Debugged) -> R + Send + 'static,
    ) -> TargetResult<R, Self> {
        let (answers, answer) = channel();
        let act = move |machine: &mut dyn Debugged| drop(answers.send(act(machine)));
        self.asks.send(Ask::Do(Box::new(act))).map_err(|_| TargetError::NonFatal)?;
        answer.recv().map_err(|_| TargetError::NonFatal)
    }

    fn go(&self, then: Then) -> Result<(), &'static str> {
        self.asks.send(Ask::Go(then)).map_err(|_| "the run is over")
    }
}

/// Registers, as the machine gives them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Given {
    bytes: Vec<Option<u8>>,
    pc: u64,
}

impl Registers for Given {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().copied().for_each(write_byte);
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.iter().copied().map(Some).collect();
        Ok(())
    }
}

/// Whatever the machine is: its description goes to gdb at run time.
struct Any;

impl Arch for Any {
    type Usize = u64;
    type Registers = Given;
    type BreakpointKind = usize;
    type RegId = ();
}

impl Target for Client {
    type Arch = Any;
    type Error = &'static str;

    fn base_ops(&mut self) -> BaseOps<'_, Any, &'static str> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl TargetDescriptionXmlOverride for Client {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.target.as_bytes().get(from..).unwrap_or_default();
        let len = rest.len().min(length).min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }
}

impl SingleThreadBase for Client {
    fn read_registers(&mut self, regs: &mut Given) -> TargetResult<(), Self> {
        *regs = self.ask(|machine| Given { bytes: machine.registers(), pc: machine.pc() })?;
        Ok(())
    }

    fn write_registers(&mut self, regs: &Given) -> TargetResult<(), Self> {
        let bytes: Vec<u8> = regs.bytes.iter().map(|byte| byte.unwrap_or(0)).collect();
        match self.ask(move |machine| machine.set_registers(&bytes))? {
            true => Ok(()),
            false => Err(TargetError::NonFatal),
        }
    }

    fn read_addrs(&mut self, start_addr: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        let len = data.len();
        let read = self.ask(move |machine| {
            let (mut bytes, mut at) = (Vec::new(), start_addr);
            while bytes.len() < len {
                let in_page = usize::try_from(at).unwrap_or(0) & PAGE.wrapping_sub(1);
                let size = PAGE.saturating_sub(in_page).min(len.saturating_sub(bytes.len()));
                let mut piece = vec![0; size];
                if machine.read(at, &mut piece).is_err() {
                    break;
                }
                bytes.append(&mut piece);
                at = at.wrapping_add(size as u64);
            }
            bytes
        })?;
        match data.get_mut(..read.len()) {
            Some(to) if !read.is_empty() => {
                to.copy_from_slice(&read);
                Ok(read.len())
            }
            _ => Err(TargetError::NonFatal),
        }
    }

    fn write_addrs(&mut self, start_addr: u64, data: &[u8]) -> TargetResult<(), Self> {
        let bytes = data.to_vec();
        let written = self.ask(move |machine| machine.write(start_addr, &bytes).is_ok())?;
        if written { Ok(()) } else { Err(TargetError::NonFatal) }
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Client {
    fn resume(&mut self, _signal: Option<Signal>) -> Result<(), &'static str> {
        self.go(Then::Continue)
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Client {
    fn step(&mut self, _signal: Option<Signal>) -> Result<(), &'static str> {
        self.go(Then::Step)
    }
}

impl Breakpoints for Client {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Client {
    fn add_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.ask(move |machine| machine.set_breakpoint(addr))?;
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, addr: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.ask(move |machine| machine.clear_breakpoint(addr))
    }
}

enum Loop {}

impl BlockingEventLoop for Loop {
    type Target = Client;
    type Connection = TcpStream;
    type StopReason = SingleThreadStopReason<u64>;

    fn wait_for_stop_reason(
        target: &mut Client,
        conn: &mut TcpStream,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<&'static str, io::Error>> {
        loop {
            match target.told.recv_timeout(TURN) {
                Ok(why) => {
                    return Ok(Event::TargetStopped(match why {
                        Why::Init | Why::Step => SingleThreadStopReason::DoneStep,
                        Why::Breakpoint => SingleThreadStopReason::SwBreak(()),
                        Why::Interrupt => SingleThreadStopReason::Signal(Signal::SIGINT),
                        Why::End => SingleThreadStopReason::Signal(Signal::SIGABRT),
                    }));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let code = target.ended.load(Ordering::Relaxed);
                    return Ok(Event::TargetStopped(SingleThreadStopReason::Exited(code)));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if conn.peek().map_err(WaitForStopReasonError::Connection)?.is_some() {
                let byte = ConnectionExt::read(conn).map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
        }
    }

    /// The machine stops as soon as it can, and says so itself.
    fn on_interrupt(target: &mut Client) -> Result<Option<Self::StopReason>, &'static str> {
        target.interrupts.store(true, Ordering::Relaxed);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_taken() {
        let taken = |text| address(text).map(|address| address.to_string());
        assert_eq!(taken(":1234").as_deref(), Ok("127.0.0.1:1234"));
        assert_eq!(taken("127.0.0.1:0").as_deref(), Ok("127.0.0.1:0"));
        assert_eq!(taken("localhost:7").as_deref(), Ok("127.0.0.1:7"));
        assert_eq!(taken("[::1]:7").as_deref(), Ok("[::1]:7"));
        for text in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "1234", ":", ":65536", "localhost", ""] {
            assert!(taken(text).is_err(), "{text}");
        }
    }
}
