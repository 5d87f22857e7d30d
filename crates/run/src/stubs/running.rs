//! What a running kernel is told: messages, grace periods, time, random numbers.

use super::Given;
use crate::machine::{Answer, Failed, Machine, Platform, TICK};
use crate::world::Message;

/// Longest message of the kernel (PRINTKRB_RECORD_MAX).
const MESSAGE_MAX: u64 = 1024;
/// Rounds of the idle loop without anything else to do, at most: that is an hour.
const IDLE_MAX: u64 = 900_000;
/// Callbacks that wait at most.
const CALLBACKS_MAX: usize = 1 << 20;

/// `(facility, level, dev_info, fmt, args)`
pub(super) fn vprintk_emit<C: Platform>(m: &mut Machine<C>) -> Given {
    let (level, format, args) = (m.argument(1)? as u32 as i32, m.argument(3)?, m.argument(4)?);
    let buffer = m.world.buffer;
    let len = m.call("vscnprintf", &[buffer, MESSAGE_MAX, format, args])? & 0xffff_ffff;
    let text = m.memory.bytes(buffer, usize::try_from(len.min(MESSAGE_MAX)).unwrap_or(0))?;
    // printk_parse_prefix: KERN_SOH and a level, or 'c' for what goes on.
    let (mut text, mut level, mut goes_on) = (text.as_slice(), u8::try_from(level).ok(), false);
    while let [1, kind, rest @ ..] = text {
        match kind {
            b'0'..=b'7' => level = level.or(Some(kind & 7)),
            b'c' => goes_on = true,
            _ => {}
        }
        text = rest;
    }
    let ended = text.last() == Some(&b'\n');
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let time = m.world.time;
    let log = &mut m.world.log;
    match log.last_mut().filter(|last| goes_on && !last.ended) {
        Some(last) => {
            last.text.extend_from_slice(text);
            last.ended = ended;
        }
        None => log.push(Message { level: level.unwrap_or(4), time, text: text.into(), ended }),
    }
    Ok(Answer::Value(len))
}

/// Callbacks whose grace period is over: that of all.
pub(super) fn call_back<C: Platform>(m: &mut Machine<C>) -> Result<(), Failed> {
    let waiting = core::mem::take(&mut m.world.callbacks);
    for (head, function) in waiting {
        m.call_at(function, &[head])?;
    }
    Ok(())
}

pub(super) fn called_back<C: Platform>(m: &mut Machine<C>) -> Given {
    call_back(m)?;
    Ok(Answer::Value(0))
}

pub(super) fn wait_for_grace<C: Platform>(m: &mut Machine<C>, head: usize) -> Given {
    let callback = (m.argument(head)?, m.argument(head.saturating_add(1))?);
    if m.world.callbacks.len() >= CALLBACKS_MAX {
        return Err(Failed::Because("too many callbacks wait for a grace period".into()));
    }
    m.world.callbacks.push_back(callback);
    Ok(Answer::Value(0))
}

/// A delay of `argument * factor / divisor` nanoseconds. The kernel is told of the ticks in it.
pub(super) fn delay<C: Platform>(m: &mut Machine<C>, factor: u64, divisor: u64) -> Given {
    let time = m.argument(0)?.wrapping_mul(factor).checked_div(divisor).unwrap_or(0);
    m.world.time = m.world.time.wrapping_add(time);
    m.world.since_tick = m.world.since_tick.wrapping_add(time);
    // A long delay is as good as its last second.
    m.world.since_tick = m.world.since_tick.min(TICK.wrapping_mul(250));
    while m.world.is_booted && m.world.since_tick >= TICK {
        m.world.since_tick = m.world.since_tick.wrapping_sub(TICK);
        m.call("do_timer", &[1])?;
        m.call("update_wall_time", &[])?;
        m.call("update_process_times", &[0])?;
    }
    Ok(Answer::Value(0))
}

/// The idle loop: callbacks, then a tick, then what it has woken.
pub(crate) fn idle<C: Platform>(m: &mut Machine<C>) -> Given {
    m.world.idle = m.world.idle.wrapping_add(1);
    if m.world.idle > IDLE_MAX {
        return Err(Failed::Because("everything waits, and nothing comes".into()));
    }
    m.world.time = m.world.time.wrapping_add(TICK);
    call_back(m)?;
    m.call("do_timer", &[1])?;
    m.call("update_wall_time", &[])?;
    match m.symbols.address("run_local_timers") {
        Some(function) => m.call_at(function, &[])?,
        None => m.call("update_process_times", &[0])?,
    };
    m.call("do_softirq", &[])?;
    Ok(Answer::Value(0))
}

pub(super) fn random_bytes<C: Platform>(m: &mut Machine<C>) -> Given {
    let (at, len) = (m.argument(0)?, m.argument(1)?);
    // Each byte costs as much as an instruction.
    if len > m.budget {
        return Err(Failed::Because("the instruction budget is used up by random bytes".into()));
    }
    m.budget = m.budget.saturating_sub(len);
    for number in 0..len {
        let byte = m.world.random() as u8;
        m.memory.write(at.wrapping_add(number), &[byte])?;
    }
    Ok(Answer::Value(0))
}
