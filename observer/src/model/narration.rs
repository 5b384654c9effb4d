//! What a lab tells beside the screen, as far as it has come. Words only: what they mean is the lab's.

/// All that was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narration {
    /// The lab's name.
    pub title: String,
    /// Its lines, the newest last.
    pub lines: Vec<Told>,
    /// How far a longer step is: done, and of how much.
    pub progress: Option<(u64, u64)>,
    /// Whether it waits for the person.
    pub is_waiting: bool,
    /// Whether the verdict is there.
    pub is_over: bool,
}

/// A piece of narration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose words these are, or what kind.
    pub voice: Voice,
    /// The words, as one paragraph.
    pub text: String,
}

/// Whose words these are, or what kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// The claim, and what the lab uses.
    Opening,
    /// What is about to happen.
    Step,
    /// The rule.
    Theory,
    /// What the kernel did.
    Kernel,
    /// What observer counted or foretold.
    Observer,
    /// A drawing that is not to be wrapped.
    Drawing,
    /// A statement that holds, or a verdict of that kind.
    Good,
    /// One that does not.
    Bad,
}

impl Voice {
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
