//! Recorded rows, one a line.

/// Tries each row, and those of the file that the variable `more` names, where somebody has recorded more. What `row` tells of them; a panic
/// shows some of those that differ.
pub fn each<T>(own: &str, more: &str, row: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
    let more = std::env::var(more).map(|path| std::fs::read_to_string(path).unwrap());
    let lines = own.lines().chain(more.as_deref().unwrap_or_default().lines());
    let (mut told, mut wrong) = (Vec::new(), Vec::new());
    for line in lines {
        match row(line) {
            Ok(what) => told.push(what),
            Err(what) => wrong.push(format!("{line}: {what}")),
        }
    }
    let some = wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {} rows:\n{some}", wrong.len(), wrong.len() + told.len());
    told
}
