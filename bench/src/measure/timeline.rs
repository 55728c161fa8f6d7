//! Every request of a step, so that a stall can be looked at.

use crate::load::{Observation, Recording, Sample};
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The requests of a step by the instant at which they were due, in microseconds since the load began. A round keeps them for its first trial:
/// they are to be looked at, and the histograms of all trials are what counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Start of the window.
    pub start_us: u64,
    /// End of the window.
    pub end_us: u64,
    /// The probes over kept-alive connections: for each the time since the one before was due, the response time doubled (odd if that is the age of
    /// an answer that never came), and the connection, as LEB128 in base64.
    probes: String,
    /// The blockers, in the same form.
    blockers: String,
}

impl Timeline {
    /// The requests of these lanes that were kept.
    pub fn of(seen: &Observation, probes: &Recording, blockers: Option<&Recording>) -> Self {
        let samples = |recording: &Recording| recording.samples.clone();
        Timeline {
            start_us: micros(seen.window_start),
            end_us: micros(seen.window_start + seen.window),
            probes: encode(samples(probes)),
            blockers: encode(blockers.map(samples).unwrap_or_default()),
        }
    }

    /// The probes over kept-alive connections.
    ///
    /// # Errors
    /// Something else than what was written.
    pub fn probes(&self) -> Result<Vec<Sample>> {
        decode(&self.probes)
    }

    /// The blockers.
    ///
    /// # Errors
    /// Something else than what was written.
    pub fn blockers(&self) -> Result<Vec<Sample>> {
        decode(&self.blockers)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn encode(mut samples: Vec<Sample>) -> String {
    samples.sort_by_key(|sample| sample.planned);
    let (mut bytes, mut last) = (Vec::new(), 0);
    for sample in samples {
        let at = micros(sample.planned);
        leb128(&mut bytes, at - last);
        leb128(&mut bytes, micros(sample.response) << 1 | u64::from(!sample.is_answered));
        leb128(&mut bytes, sample.connection as u64);
        last = at;
    }
    STANDARD.encode(bytes)
}

fn decode(text: &str) -> Result<Vec<Sample>> {
    let bytes = STANDARD.decode(text).context("a timeline is not base64")?;
    let (mut rest, mut at) = (bytes.as_slice(), 0_u64);
    let mut samples = Vec::new();
    while !rest.is_empty() {
        at = at.checked_add(read(&mut rest)?).context("a timeline has no end")?;
        let response = read(&mut rest)?;
        samples.push(Sample {
            connection: usize::try_from(read(&mut rest)?)?,
            planned: Duration::from_micros(at),
            response: Duration::from_micros(response >> 1),
            is_answered: response & 1 == 0,
        });
    }
    Ok(samples)
}

/// Writes a number as LEB128: seven bits to a byte, the lowest first.
pub fn leb128(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read(rest: &mut &[u8]) -> Result<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (byte, behind) = rest.split_first().context("a timeline is cut off")?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    bail!("a number of a timeline is too long");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(connection: usize, planned: u64, response: u64, is_answered: bool) -> Sample {
        Sample { connection, planned: Duration::from_micros(planned), response: Duration::from_micros(response), is_answered }
    }

    #[test]
    fn numbers_have_the_bytes_of_the_standard() {
        // The examples of DWARF 5, table 7.8.
        for (number, bytes) in
            [(2, &[2][..]), (127, &[127]), (128, &[0x80, 1]), (129, &[0x81, 1]), (130, &[0x82, 1]), (12857, &[0xb9, 0x64])]
        {
            let mut found = Vec::new();
            leb128(&mut found, number);
            assert_eq!(found, bytes, "{number}");
        }
    }

    #[test]
    fn what_is_read_back_is_what_was_written_in_order() {
        let (first, second) = (sample(511, 100_000, 99_000_000, false), sample(0, 101_000, 45, true));
        assert_eq!(decode(&encode(vec![second, first])).unwrap(), [first, second]);
        assert_eq!(decode("").unwrap(), []);
    }

    #[test]
    fn what_was_not_written_so_is_an_error() {
        for (bytes, why) in [(&[0x80][..], "cut off"), (&[1, 2], "cut off"), (&[0xff; 12], "too long")] {
            assert!(decode(&STANDARD.encode(bytes)).unwrap_err().to_string().contains(why), "{bytes:?}");
        }
        let mut huge = Vec::new();
        [u64::MAX >> 1, 0, 0, u64::MAX >> 1, 0, 0, 2, 0, 0].into_iter().for_each(|number| leb128(&mut huge, number));
        assert!(decode(&STANDARD.encode(huge)).unwrap_err().to_string().contains("no end"));
        assert!(decode("?").unwrap_err().to_string().contains("base64"));
    }
}
