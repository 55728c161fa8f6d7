//! Errors of usage: arguments that do not go together, or that name what does not exist.

use std::fmt;

/// An error of usage in words. It ends the program with the code that an unknown option ends it with.
#[derive(Debug)]
pub struct Usage(pub String);

/// The exit code.
pub const EXIT_CODE: u8 = 2;

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Returns an error of usage, in the words that `format!` makes of its arguments.
macro_rules! refuse {
    ($($words:tt)*) => {
        return Err($crate::console::usage::Usage(format!($($words)*)).into())
    };
}
pub(crate) use refuse;
