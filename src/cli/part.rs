//! The part of a check that one machine of several does (`--shard`).

use std::ops::Range;

use kmodld::check::set::share;

use super::options::Shard;

/// The part of all modules on all kernels that is to be checked, in the order of the output.
#[derive(Debug)]
pub struct Part {
    /// Module by module, the kernels of each.
    pairs: Range<usize>,
    targets: usize,
    /// The files that have a pair in it.
    pub files: Range<usize>,
    /// Is it the first part? That one tells what belongs to none.
    pub is_first: bool,
}

impl Part {
    /// The part that was asked for; all without one.
    pub fn of(shard: Option<Shard>, files: usize, targets: usize) -> Self {
        let all = files.saturating_mul(targets);
        let pairs = shard.map_or(0..all, |shard| share(all, shard.part, shard.of));
        let targets = targets.max(1);
        let first = pairs.start.checked_div(targets).unwrap_or(0);
        let files = if pairs.is_empty() { first..first } else { first..pairs.end.div_ceil(targets) };
        Part { pairs, targets, files, is_first: shard.is_none_or(|shard| shard.part == 1) }
    }

    /// The kernels for which a file is of this part.
    pub fn kernels(&self, file: usize) -> Range<usize> {
        let start = file.saturating_mul(self.targets);
        let end = start.saturating_add(self.targets);
        let within = |pair: usize| pair.clamp(start, end).saturating_sub(start);
        within(self.pairs.start)..within(self.pairs.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_modules_on_kernels_are_the_whole() {
        for (files, targets) in [(0, 0), (0, 2), (1, 3), (5, 1), (7, 3)] {
            for of in 1..30 {
                let mut seen = Vec::new();
                for part in 1..=of {
                    let part = Part::of(Some(Shard { part, of }), files, targets);
                    for file in part.files.clone() {
                        let kernels = part.kernels(file);
                        assert!(!kernels.is_empty(), "nothing is read in vain");
                        seen.extend(kernels.map(|kernel| (file, kernel)));
                    }
                }
                let all = (0..files).flat_map(|file| (0..targets).map(move |kernel| (file, kernel)));
                assert_eq!(seen, all.collect::<Vec<_>>(), "{files} files, {targets} kernels, {of} parts");
            }
        }
    }
}
