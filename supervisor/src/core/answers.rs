//! Answers to clients, each of which may wait for several tasks.

use super::{Client, Core, Output};
use crate::control::Answer;

/// A client's commands in progress, and the results of those that have ended.
#[derive(Default)]
pub(super) struct Waiting {
    left: usize,
    done: Vec<String>,
    troubles: Vec<String>,
}

impl Waiting {
    /// Returns whether it is not only the last task that is waited for.
    pub fn is_for_more(&self) -> bool {
        self.left > 1 || !self.done.is_empty() || !self.troubles.is_empty()
    }
}

impl Core {
    pub(super) fn answer(&mut self, client: Client, answer: Answer) {
        self.waiting.remove(&client);
        self.out.push(Output::Answer(client, answer));
    }

    /// Lets a client wait for one more task.
    pub(super) fn wait(&mut self, client: Client) {
        self.waiting.entry(client).or_default().left += 1;
    }

    /// Notes that a task of a client has ended, and answers the client after its last task.
    pub(super) fn told(&mut self, client: Client, result: Result<String, String>) {
        let Some(waiting) = self.waiting.get_mut(&client) else { return };
        waiting.left = waiting.left.saturating_sub(1);
        match result {
            Ok(done) => waiting.done.push(done),
            Err(trouble) => waiting.troubles.push(trouble),
        }
        if waiting.left > 0 {
            return;
        }
        let answer = if waiting.troubles.is_empty() {
            Answer::Done(waiting.done.join("; "))
        } else {
            Answer::Error(waiting.troubles.join("; "))
        };
        self.answer(client, answer);
    }
}
