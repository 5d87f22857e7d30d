//! The page.
use super::event::Event;
use super::words::Lang;
/// x
pub fn page(_events: &[Event], _lang: Lang, _step: Option<&str>) -> std::io::Result<String> {
    Ok(String::new())
}
