//! The interface that every protocol machine offers to the task that drives it.

use crate::time::Millis;

/// A state machine without I/O, clock or randomness.
///
/// Its driver hands in inputs with the time at which they came, then takes outputs until there are none, executes them,
/// and calls [`Machine::handle_timeout`] at the time that [`Machine::next_timeout`] names. After every input the outputs
/// and the next timeout may have changed. Two machines that get the same inputs at the same times give the same outputs.
pub trait Machine {
    /// A message that the driver received for this machine, a result of an earlier output, or the passing of time.
    type Input;
    /// A message or command that the driver executes for this machine.
    type Output;
    /// The reason an input could not be processed; the machine is in the state it had reached before the failing step.
    type Error;

    /// Processes one input that came at `now`.
    fn handle(&mut self, now: Millis, input: Self::Input) -> Result<(), Self::Error>;

    /// Processes the passing of time up to `now`. Calling it early does nothing.
    fn handle_timeout(&mut self, now: Millis) -> Result<(), Self::Error>;

    /// Removes and returns the oldest output that has not been executed yet.
    fn poll_output(&mut self) -> Option<Self::Output>;

    /// Returns the time at which [`Machine::handle_timeout`] is to be called; `None` if only an input can change anything.
    fn next_timeout(&self) -> Option<Millis>;

    /// True if the machine has finished its work: its driver takes the remaining outputs and drops it.
    fn is_done(&self) -> bool;
}
