//! A trial being measured: the conditions it runs under, a fresh server, the right answer learned, warmed up, and retried until the driver has
//! done what it owed.

mod backend;
mod blocker;
mod conditions;
mod foreign;
mod hlog;
mod latency;
mod learn;
mod session;
mod timeline;

pub use backend::{Backend, Keeping, save_launch};
pub use blocker::{Kind, Kinds};
pub use conditions::{Conditions, Mode};
pub use foreign::{Beside, Foreign};
pub use hlog::{Log, write_seconds};
pub use latency::{Latency, known, of_unfailed};
pub use learn::{Kept, learn, learn_on, learn_own, learn_request, lenient, of_first, refusal};
pub use session::{Session, WARM_CONNECTIONS, ms};
pub use timeline::{Timeline, leb128};
