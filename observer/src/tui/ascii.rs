//! The screen in ASCII, for terminals and locales that have nothing else.
//!
//! A last pass over what was drawn, cell by cell: no widget has to know of it, and no line gets longer or shorter.

use ratatui::buffer::Buffer;

/// The ASCII substitute of a letter.
fn plain(symbol: &str) -> &'static str {
    match symbol {
        "→" => ">",
        "↑" | "▲" => "^",
        "↓" | "▼" => "v",
        "–" | "─" | "▄" | "▃" => "-",
        "│" => "|",
        "┌" | "┐" | "└" | "┘" => "+",
        "…" => "~",
        "·" => ";",
        "×" => "x",
        "←" | "≤" => "<",
        "█" | "▇" => "#",
        "▆" | "▅" => "=",
        "▂" => "_",
        "▁" | "░" => ".",
        _ => "?",
    }
}

/// Leaves nothing in the buffer that is not ASCII.
pub(crate) fn fold(buf: &mut Buffer) {
    for index in 0..buf.content.len() {
        let symbol = buf.content[index].symbol();
        if symbol.is_ascii() {
            continue;
        }
        // The blank behind it has room for the other half of "<=".
        let is_at_most = symbol == "≤";
        let plain = plain(symbol);
        buf.content[index].set_symbol(plain);
        if let Some(next) = buf.content.get_mut(index + 1).filter(|next| is_at_most && next.symbol() == " ") {
            next.set_symbol("=");
        }
    }
}
