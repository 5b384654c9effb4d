//! What a lab has said so far, for the panel beside the screen. It holds text alone: its meaning is the lab's.

/// Everything a lab has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The lab's name.
    pub title: String,
    /// Its lines, the newest last.
    pub lines: Vec<TranscriptLine>,
    /// Progress of a long step: how many are done, of how many.
    pub progress: Option<(u64, u64)>,
    /// Whether the lab waits for the person to press a key.
    pub is_waiting: bool,
    /// Whether the lab has given its verdict.
    pub is_over: bool,
}

/// One paragraph of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranscriptLine {
    /// Who says it, or what kind of line it is.
    pub speaker: Speaker,
    /// The text, as one paragraph.
    pub text: String,
}

/// Who says a line, or what kind of line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The claim, and what the lab uses.
    Opening,
    /// The title of the next step.
    Step,
    /// The rule.
    Theory,
    /// What the kernel did.
    Kernel,
    /// What observer counted or predicted.
    Observer,
    /// A drawing, which must not be wrapped.
    Drawing,
    /// A check that holds, or a verdict "confirmed".
    Good,
    /// A check that does not hold, or any other verdict.
    Bad,
}

impl Speaker {
    /// The word before each paragraph.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Theory => "theory",
            Self::Kernel => "kernel",
            Self::Observer => "observer",
            Self::Opening | Self::Step | Self::Drawing | Self::Good | Self::Bad => "",
        }
    }
}
