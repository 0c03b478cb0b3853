//! The last lines that a child process wrote to its error output.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that are kept: the message of a panic or of libav's last complaints.
const KEPT_BYTES: usize = 4096;
/// Bytes that are read at once.
const READ_BYTES: usize = 1024;

/// The end of a child's error output; everything before it is read and dropped, so that the child never waits for it.
#[derive(Debug, Default)]
pub(super) struct StderrTail {
    bytes: Vec<u8>,
}

impl StderrTail {
    /// Reads once. False at the end of the output.
    pub(super) async fn read(&mut self, output: &mut (impl AsyncRead + Unpin)) -> bool {
        let mut chunk = [0; READ_BYTES];
        match output.read(&mut chunk).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.push(&chunk[..count]);
                true
            }
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
        let excess = self.bytes.len().saturating_sub(KEPT_BYTES);
        self.bytes.drain(..excess);
    }

    /// Returns the lines as one, for a log: control characters are replaced, since a publisher may have chosen them.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let joined = lines.collect::<Vec<_>>().join(" | ");
        joined.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tail_keeps_the_last_bytes_as_one_line_without_control_characters() {
        let mut tail = StderrTail::default();
        let written = format!("{}\n first \x1b[2J\n\nlast\n", "x".repeat(10_000));
        let mut output = written.as_bytes();
        while tail.read(&mut output).await {}
        let text = tail.text();
        assert!(text.len() < KEPT_BYTES + 20, "{}", text.len());
        assert!(text.ends_with("x | first \u{fffd}[2J | last"), "{}", &text[text.len() - 40..]);
    }
}
