//! One table of keys, for their actions, the help and the footer.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::{
    message::{Message, Move, Step},
    prompt::Typed,
    screen_name::ScreenName,
};

/// A key as it is typed; a capital letter stands for itself with Shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    code: KeyCode,
    ctrl: bool,
}

const fn key(code: KeyCode) -> Key {
    Key { code, ctrl: false }
}

const fn char(c: char) -> Key {
    key(KeyCode::Char(c))
}

const fn ctrl(c: char) -> Key {
    Key { code: KeyCode::Char(c), ctrl: true }
}

impl Key {
    fn typed(event: KeyEvent) -> Option<Self> {
        let other = event.modifiers.difference(KeyModifiers::CONTROL | KeyModifiers::SHIFT);
        (event.kind != KeyEventKind::Release && other.is_empty())
            .then_some(Self { code: event.code, ctrl: event.modifiers.contains(KeyModifiers::CONTROL) })
    }

    /// As it is printed in the help.
    pub(crate) fn label(self) -> String {
        match (self.code, self.ctrl) {
            (KeyCode::Char(' '), _) => "Space".to_owned(),
            (KeyCode::Char(c), true) => format!("Ctrl-{}", c.to_ascii_uppercase()),
            (KeyCode::Char(c), false) => c.to_string(),
            (KeyCode::Up, _) => "↑".to_owned(),
            (KeyCode::Down, _) => "↓".to_owned(),
            (KeyCode::Left, _) => "←".to_owned(),
            (KeyCode::Right, _) => "→".to_owned(),
            (KeyCode::BackTab, _) => "Shift-Tab".to_owned(),
            (KeyCode::PageUp, _) => "PgUp".to_owned(),
            (KeyCode::PageDown, _) => "PgDn".to_owned(),
            (code, _) => code.to_string(),
        }
    }
}

/// Keys, and what they do.
#[derive(Debug)]
pub(crate) struct KeyBinding {
    /// The first is the one to teach.
    pub(crate) keys: &'static [Key],
    pub(crate) message: Message,
    /// For the help.
    pub(crate) help: &'static str,
    /// A word for the footer; the first bindings are the last to leave it.
    pub(crate) footer: Option<&'static str>,
}

const fn binding(
    keys: &'static [Key],
    message: Message,
    help: &'static str,
    footer: Option<&'static str>,
) -> KeyBinding {
    KeyBinding { keys, message, help, footer }
}

pub(crate) const KEYMAP: &[KeyBinding] = &[
    binding(&[char('q'), ctrl('c')], Message::Quit, "Quit.", Some("quit")),
    binding(&[char('?'), char('h'), key(KeyCode::F(1))], Message::ToggleHelp, "Open or close this help.", Some("help")),
    binding(
        &[char(' '), char('p')],
        Message::TogglePause,
        "Pause the display; counting goes on. In a replay: stop the replay.",
        Some("pause"),
    ),
    binding(&[key(KeyCode::Tab)], Message::NextScreen, "The next screen.", Some("screen")),
    binding(&[key(KeyCode::BackTab)], Message::PreviousScreen, "The previous screen.", None),
    binding(
        &[char('1')],
        Message::Show(ScreenName::Endpoints),
        "Endpoints: local addresses and their connections.",
        None,
    ),
    binding(
        &[char('2')],
        Message::Show(ScreenName::Destinations),
        "Destinations: local ports that are left towards each.",
        None,
    ),
    binding(
        &[char('3')],
        Message::Show(ScreenName::Processes),
        "Processes: their sockets, descriptors and failures.",
        None,
    ),
    binding(&[char('4')], Message::Show(ScreenName::Connections), "Connections: single four-tuples.", None),
    binding(&[char('5')], Message::Show(ScreenName::Limits), "Limits: everything that can run out.", None),
    binding(
        &[char('6')],
        Message::Show(ScreenName::Failures),
        "Failures: calls and connections that the kernel refused.",
        None,
    ),
    binding(&[char('7')], Message::Show(ScreenName::Services), "Services: units, pods, containers and machines.", None),
    binding(&[char('8')], Message::Show(ScreenName::Quality), "Data quality: losses, scans and hooks.", None),
    binding(&[key(KeyCode::Enter)], Message::Enter, "The connections of the row; Esc goes back.", Some("connections")),
    binding(
        &[char('i')],
        Message::Explain,
        "Explain every number of the row: what it is and where it comes from. Of a limit: how to raise it.",
        Some("explain"),
    ),
    binding(
        &[char('/')],
        Message::Filter,
        "Show only the rows that match: port:443 state:time_wait comm:nginx pid:812 netns:blue service:web unit:nginx pod:shop/web container:db dir:out 10.0.0.0/8, or part of a name.",
        Some("filter"),
    ),
    binding(&[char('s')], Message::NextSort, "Sort by the next column.", Some("sort")),
    binding(&[char('S')], Message::ReverseSort, "Reverse the order.", Some("reverse")),
    binding(&[key(KeyCode::Up), char('k')], Message::Move(Move::Up), "One row up.", None),
    binding(&[key(KeyCode::Down), char('j')], Message::Move(Move::Down), "One row down.", None),
    binding(&[key(KeyCode::PageUp)], Message::Move(Move::PageUp), "One page up.", None),
    binding(&[key(KeyCode::PageDown)], Message::Move(Move::PageDown), "One page down.", None),
    binding(&[ctrl('u')], Message::Move(Move::HalfPageUp), "Half a page up.", None),
    binding(&[ctrl('d')], Message::Move(Move::HalfPageDown), "Half a page down.", None),
    binding(&[key(KeyCode::Home), char('g')], Message::Move(Move::First), "First row.", None),
    binding(&[key(KeyCode::End), char('G')], Message::Move(Move::Last), "Last row.", None),
    binding(
        &[key(KeyCode::Esc)],
        Message::Close,
        "Close the window on top, deselect the row, clear the filter, or go back: the first that applies.",
        None,
    ),
    binding(&[char('R')], Message::RestartTotals, "Reset peaks and totals to the present. Losses stay.", None),
    binding(
        &[char('m')],
        Message::ToggleMouse,
        "Switch the mouse on or off: wheel; click on rows, columns, screens.",
        None,
    ),
    binding(&[key(KeyCode::Left)], Message::Playback(Step::Back), "Replay: ten seconds back.", None),
    binding(&[key(KeyCode::Right)], Message::Playback(Step::Ahead), "Replay: ten seconds ahead.", None),
    binding(&[char('[')], Message::Playback(Step::Slower), "Replay: half as fast.", None),
    binding(&[char(']')], Message::Playback(Step::Faster), "Replay: twice as fast.", None),
    binding(
        &[char('<')],
        Message::Playback(Step::PreviousIncident),
        "Replay of a recorder: the minute before the previous incident.",
        None,
    ),
    binding(
        &[char('>')],
        Message::Playback(Step::NextIncident),
        "Replay of a recorder: the minute before the next incident.",
        None,
    ),
    binding(&[char('n')], Message::NextStep, "Lab: the next step.", None),
    binding(&[ctrl('l')], Message::Redraw, "Redraw the screen.", None),
    binding(&[ctrl('z')], Message::Suspend, "Suspend; `fg` in the shell resumes.", None),
];

/// The message of a key press; while a filter is typed, letters are text.
pub(crate) fn message(event: KeyEvent, is_typing: bool) -> Option<Message> {
    let typed = Key::typed(event)?;
    let bound = KEYMAP.iter().find(|binding| binding.keys.contains(&typed)).map(|binding| binding.message);
    match bound {
        // These keys are no text, and act while a filter is typed too.
        Some(Message::Redraw | Message::Suspend) => bound,
        _ if is_typing => typing(typed).map(Message::Type),
        _ => bound,
    }
}

/// The message of a mouse event; none while a filter is typed.
pub(crate) const fn pointed(event: MouseEvent, is_typing: bool) -> Option<Message> {
    match event.kind {
        _ if is_typing => None,
        MouseEventKind::ScrollUp => Some(Message::Move(Move::Up)),
        MouseEventKind::ScrollDown => Some(Message::Move(Move::Down)),
        MouseEventKind::Down(MouseButton::Left) => Some(Message::Click { column: event.column, row: event.row }),
        _ => None,
    }
}

fn typing(key: Key) -> Option<Typed> {
    Some(match (key.code, key.ctrl) {
        (KeyCode::Enter, _) => Typed::Accept,
        (KeyCode::Esc, _) | (KeyCode::Char('c'), true) => Typed::Cancel,
        (KeyCode::Char('u'), true) => Typed::EraseAll,
        (KeyCode::Char('w'), true) => Typed::EraseWord,
        (KeyCode::Backspace, _) | (KeyCode::Char('h'), true) => Typed::Erase,
        (KeyCode::Char(letter), false) => Typed::Letter(letter),
        _ => return None,
    })
}
