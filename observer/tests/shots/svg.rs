//! A terminal's screen as an SVG, cell by cell.

use std::fmt::Write as _;

use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

const CELL_WIDTH: u16 = 9;
const CELL_HEIGHT: u16 = 19;
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d5d8de";

/// Draws every cell of the screen.
pub(crate) fn of_screen(screen: &Buffer) -> String {
    let (width, height) = (screen.area.width * CELL_WIDTH + 20, screen.area.height * CELL_HEIGHT + 20);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" \
         font-size=\"15\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n"
    );
    for row in 0..screen.area.height {
        let mut column = 0;
        while column < screen.area.width {
            column += run(screen, row, column, &mut svg);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws the cells from `column` on that look alike; returns how many they are.
fn run(screen: &Buffer, row: u16, column: u16, svg: &mut String) -> u16 {
    let style = Style::of(&screen[(column, row)]);
    let is_alike = |x: &u16| Style::of(&screen[(*x, row)]) == style;
    let cells: Vec<u16> = (column..screen.area.width).take_while(is_alike).collect();
    let text: String = cells.iter().map(|x| screen[(*x, row)].symbol()).collect();
    let length = u16::try_from(cells.len()).unwrap();
    let (x, y) = (10 + column * CELL_WIDTH, 10 + row * CELL_HEIGHT);
    let width = length * CELL_WIDTH;
    if style.background != BACKGROUND {
        writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{CELL_HEIGHT}\" fill=\"{}\"/>",
            style.background
        )
        .unwrap();
    }
    if !text.trim().is_empty() {
        let weight = if style.bold { " font-weight=\"bold\"" } else { "" };
        let opacity = if style.dim { " opacity=\"0.65\"" } else { "" };
        writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" textLength=\"{width}\" xml:space=\"preserve\" fill=\"{}\"{weight}{opacity}>{}</text>",
            y + 14,
            style.foreground,
            text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
        )
        .unwrap();
    }
    length
}

#[derive(PartialEq, Eq)]
struct Style {
    foreground: &'static str,
    background: &'static str,
    bold: bool,
    dim: bool,
}

impl Style {
    fn of(cell: &Cell) -> Self {
        let has = |modifier| cell.modifier.contains(modifier);
        let (foreground, background) = (color(cell.fg, FOREGROUND), color(cell.bg, BACKGROUND));
        let (foreground, background) =
            if has(Modifier::REVERSED) { (background, foreground) } else { (foreground, background) };
        Self { foreground, background, bold: has(Modifier::BOLD), dim: has(Modifier::DIM) }
    }
}

/// The colours that the dark theme uses, as a dark terminal shows them.
fn color(color: Color, default: &'static str) -> &'static str {
    match color {
        Color::Reset => default,
        Color::Red => "#e06c75",
        Color::Green => "#98c379",
        Color::Yellow => "#e5c07b",
        Color::Cyan => "#56b6c2",
        other => panic!("no theme that is drawn here uses {other:?}"),
    }
}
