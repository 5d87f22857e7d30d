//! How the init function of a module is told to end.

use elf_layout::Errno;
use kernel::Init;

/// `0`, a positive number, `-ENODEV`, `-19` or `crash`.
pub fn init_result(text: &str) -> Result<Init, String> {
    let wrong = || format!("--init={text}: not 0, a positive number, an error such as -ENODEV, or crash");
    if text == "crash" {
        return Ok(Init::Crashes);
    }
    match text.strip_prefix('-') {
        None => {
            text.parse::<i32>().ok().and_then(|v| u32::try_from(v).ok()).map(Init::Returns).ok_or_else(wrong)
        }
        Some(error) => {
            let by_number = || error.parse().ok().and_then(Errno::from_number);
            Errno::from_name(error).or_else(by_number).map(Init::Fails).ok_or_else(wrong)
        }
    }
}
