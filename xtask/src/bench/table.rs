//! Tables, in Markdown: what the terminal shows is what the document has.

use std::fmt;

/// A title, a head, and rows as wide as the head.
#[derive(Debug)]
pub(super) struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    pub(super) fn new<const N: usize>(title: &str, head: [&str; N]) -> Self {
        let head = head.map(str::to_owned).to_vec();
        Self { title: title.to_owned(), head, rows: Vec::new(), notes: Vec::new() }
    }

    /// A row; what it lacks at its end stays empty.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert!(N <= self.head.len(), "a row is wider than its head: {cells:?}");
        let mut cells = Vec::from(cells);
        cells.resize(self.head.len(), String::new());
        self.rows.push(cells);
    }

    /// The row of what cannot be measured on this machine; the reason stands below the table.
    pub(super) fn refusal(&mut self, what: &str, why: &str) {
        self.row([what.to_owned(), "does not run here".to_owned()]);
        self.notes.push(format!("{what}: {why}"));
    }

    /// A sentence below the table.
    pub(super) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.head]);
            cells.map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let line = |f: &mut fmt::Formatter<'_>, row: &[String]| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("| {cell:<width$} "));
            writeln!(f, "{}|", cells.collect::<String>())
        };
        writeln!(f, "### {}\n", self.title)?;
        line(f, &self.head)?;
        line(f, &widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>())?;
        self.rows.iter().try_for_each(|row| line(f, row))?;
        self.notes.iter().try_for_each(|note| write!(f, "\n{note}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new("Title", ["a", "long head"]);
        table.row(["µµµ".to_owned()]);
        table.note("Note.");
        let shown = "### Title\n\n| a   | long head |\n| --- | --------- |\n| µµµ |           |\n\nNote.\n";
        assert_eq!(table.to_string(), shown);
    }
}
