//! A terminal's screen as an SVG, cell by cell.

use std::fmt::Write as _;

use vt100::{Cell, Color, Screen};

const CELL_WIDTH: u16 = 9;
const CELL_HEIGHT: u16 = 19;
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d5d8de";
/// The sixteen colours that a terminal names, as a dark theme shows them.
const NAMED: [&str; 16] = [
    "#2b2f37", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#c8ccd4", "#7f848e", "#ff7a85",
    "#b5e890", "#ffd890", "#80c4ff", "#de97f5", "#6fd3df", "#ffffff",
];

/// Draws every cell of the screen.
pub(crate) fn of_screen(screen: &Screen) -> String {
    let (rows, columns) = screen.size();
    let (width, height) = (columns * CELL_WIDTH + 20, rows * CELL_HEIGHT + 20);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" \
         font-size=\"15\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n"
    );
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            column += run(screen, row, column, columns, &mut svg);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws the cells from `column` on that look alike; returns how many they are.
fn run(screen: &Screen, row: u16, column: u16, columns: u16, svg: &mut String) -> u16 {
    let Some(first) = screen.cell(row, column) else {
        return 1;
    };
    let style = Style::of(first);
    let mut text = String::new();
    let mut length = 0;
    while let Some(cell) = screen.cell(row, column + length)
        && column + length < columns
        && Style::of(cell) == style
    {
        text.push_str(if cell.has_contents() { cell.contents() } else { " " });
        length += 1;
    }
    let (x, y) = (10 + column * CELL_WIDTH, 10 + row * CELL_HEIGHT);
    let width = length * CELL_WIDTH;
    // Writing to a String cannot fail.
    if style.background != BACKGROUND {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{CELL_HEIGHT}\" fill=\"{}\"/>",
            style.background
        );
    }
    if !text.trim().is_empty() {
        let weight = if style.bold { " font-weight=\"bold\"" } else { "" };
        let opacity = if style.dim { " opacity=\"0.65\"" } else { "" };
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" textLength=\"{width}\" xml:space=\"preserve\" fill=\"{}\"{weight}{opacity}>{}</text>",
            y + 14,
            style.foreground,
            escaped(&text)
        );
    }
    length.max(1)
}

#[derive(Clone, PartialEq, Eq)]
struct Style {
    foreground: String,
    background: String,
    bold: bool,
    dim: bool,
}

impl Style {
    fn of(cell: &Cell) -> Self {
        let foreground = color(cell.fgcolor(), FOREGROUND);
        let background = color(cell.bgcolor(), BACKGROUND);
        let (foreground, background) = if cell.inverse() { (background, foreground) } else { (foreground, background) };
        Self { foreground, background, bold: cell.bold(), dim: cell.dim() }
    }
}

fn color(color: Color, default: &str) -> String {
    match color {
        Color::Default => default.to_owned(),
        Color::Idx(index @ 0..=15) => NAMED[usize::from(index)].to_owned(),
        // The 6×6×6 cube and the ramp of greys of xterm's 256 colours.
        Color::Idx(index @ 16..=231) => {
            let level = |part: u8| if part == 0 { 0 } else { 55 + 40 * part };
            let cube = index - 16;
            format!("#{:02x}{:02x}{:02x}", level(cube / 36), level(cube / 6 % 6), level(cube % 6))
        }
        Color::Idx(index) => {
            let grey = 8 + 10 * (index - 232);
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
