//! `monit` shows processes, their CPU and memory, and their logs, full-screen.

use super::list::{COLUMNS, HEAD, Measured, look, size};
use super::readings::Readings;
use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table, TableState};
use ratatui::{DefaultTerminal, Frame};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use supervisor::files::tail;

/// Time between two samples.
const TICK: Duration = Duration::from_millis(500);
/// Number of samples that the curves keep.
const MEMORY: usize = 600;
/// Number of bytes at the end of a log that are read for the screen.
const LOG_END: u64 = 32 * 1024;

/// Shows the screen until the user presses q.
///
/// # Errors
/// Fails if there is no terminal.
pub fn run() -> Result<()> {
    if !stdout().is_terminal() {
        anyhow::bail!("monit needs a terminal: use `supervisor list`, with --json for programs");
    }
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP, SIGINT] {
        signal_hook::flag::register(signal, is_over.clone())?;
    }
    let tty = File::open("/dev/tty").context("cannot open the terminal")?;
    // This also restores the terminal after a panic.
    let result = ratatui::try_init().context("cannot take over the terminal");
    let result = result.and_then(|mut terminal| show(&mut terminal, &tty, &is_over));
    ratatui::restore();
    result
}

fn show(terminal: &mut DefaultTerminal, tty: &File, is_over: &AtomicBool) -> Result<()> {
    let mut screen = Screen::default();
    let mut due = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        if due <= Instant::now() {
            due = Instant::now() + TICK;
            screen.sample();
            terminal.draw(|frame| screen.draw(frame))?;
        }
        match wait(tty, due)? {
            Input::None => continue,
            Input::Gone => leave(),
            Input::Some => {}
        }
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    KeyCode::Down | KeyCode::Char('j') => screen.select(1),
                    KeyCode::Up | KeyCode::Char('k') => screen.select(-1),
                    _ => {}
                },
                _ => {}
            }
        }
        terminal.draw(|frame| screen.draw(frame))?;
    }
    Ok(())
}

/// The result of waiting for input.
enum Input {
    None,
    Some,
    Gone,
}

/// Waits for input. The library's own wait would never return once the terminal is gone.
fn wait(tty: &File, due: Instant) -> Result<Input> {
    let timeout = Timespec::try_from(due.saturating_duration_since(Instant::now()))?;
    let mut input = [PollFd::new(tty, PollFlags::IN)];
    match rustix::event::poll(&mut input, Some(&timeout)) {
        // A signal: the terminal was resized, or the program has to end.
        Err(Errno::INTR) => return Ok(Input::Some),
        Ok(0) => return Ok(Input::None),
        result => result?,
    };
    let is_gone = input[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
    Ok(if is_gone { Input::Gone } else { Input::Some })
}

/// Exits without a message, since the terminal is gone.
fn leave() -> ! {
    let _ = ratatui::try_restore();
    std::process::exit(0)
}

#[derive(Default)]
struct Screen {
    readings: Readings,
    measured: Vec<Measured>,
    remarks: Vec<String>,
    curves: BTreeMap<u32, Curves>,
    selected: usize,
    log: Vec<String>,
}

/// CPU and memory of an instance over time, oldest sample first.
#[derive(Default)]
struct Curves {
    /// Percent of one core.
    cpu: VecDeque<u64>,
    /// Resident memory in bytes.
    memory: VecDeque<u64>,
}

impl Curves {
    fn add(&mut self, one: &Measured) {
        for (curve, value) in
            [(&mut self.cpu, one.cpu.map_or(0, |cpu| (cpu * 100.0) as u64)), (&mut self.memory, one.memory.unwrap_or(0))]
        {
            curve.push_back(value);
            if curve.len() > MEMORY {
                curve.pop_front();
            }
        }
    }
}

impl Screen {
    /// Requests the table and takes a sample. If the daemon does not answer, the previous sample stays.
    fn sample(&mut self) {
        let (table, groups) = match look() {
            Ok(looked) => looked,
            Err(error) => {
                self.remarks = vec![format!("{error:#}")];
                return;
            }
        };
        self.remarks.clone_from(&table.remarks);
        self.measured = self.readings.measure(table, groups);
        self.curves.retain(|id, _| self.measured.iter().any(|one| one.view.id == *id));
        for one in &self.measured {
            self.curves.entry(one.view.id).or_default().add(one);
        }
        self.select(0);
    }

    fn select(&mut self, by: isize) {
        let last = self.measured.len().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(by).min(last);
        self.log = self.measured.get(self.selected).map(ends).unwrap_or_default();
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let rows = self.measured.len() as u16 + 3;
        let [processes, middle, bottom, help] =
            Layout::vertical([Constraint::Max(rows.max(4)), Constraint::Length(8), Constraint::Min(3), Constraint::Length(1)])
                .areas(frame.area());
        self.draw_processes(frame, processes);
        self.draw_curves(frame, middle);
        self.draw_log(frame, bottom);
        let remark = self.remarks.last().map(|remark| format!("  {remark}")).unwrap_or_default();
        frame.render_widget(Line::from(format!("↑↓ select  q quit{remark}")).style(Style::new().fg(Color::DarkGray)), help);
    }

    fn draw_processes(&self, frame: &mut Frame<'_>, area: Rect) {
        let texts: Vec<[String; COLUMNS]> = self.measured.iter().map(Measured::row).collect();
        let widths = widths(&texts);
        let rows = self.measured.iter().zip(texts).map(|(one, texts)| {
            let color = match one.view.status.as_str() {
                "online" => Color::Green,
                "errored" | "waiting restart" => Color::Red,
                _ => Color::Yellow,
            };
            Row::new(texts).style(Style::new().fg(color))
        });
        let table = Table::new(rows, widths)
            .header(Row::new(HEAD).style(Style::new().add_modifier(Modifier::BOLD)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .block(Block::bordered().title("processes"));
        let mut state = TableState::default().with_selected(Some(self.selected));
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn draw_curves(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(one) = self.measured.get(self.selected) else { return };
        let Some(curves) = self.curves.get(&one.view.id) else { return };
        let [cpu, memory] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
        let most_cpu = curves.cpu.iter().max().copied().unwrap_or(0).max(100);
        let most_memory = curves.memory.iter().max().copied().unwrap_or(0).max(1);
        let titles = [format!("cpu, up to {most_cpu} %"), format!("memory, up to {}", size(most_memory))];
        let data = [(cpu, &curves.cpu, most_cpu, Color::Cyan), (memory, &curves.memory, most_memory, Color::Magenta)];
        for ((area, curve, most, color), title) in data.into_iter().zip(titles) {
            let width = usize::from(area.width.saturating_sub(2));
            let newest = curve.iter().skip(curve.len().saturating_sub(width)).copied();
            let line = Sparkline::default().data(newest.collect::<Vec<u64>>()).max(most).style(Style::new().fg(color));
            frame.render_widget(line.block(Block::bordered().title(title)), area);
        }
    }

    fn draw_log(&self, frame: &mut Frame<'_>, area: Rect) {
        let name = self.measured.get(self.selected).map_or_else(String::new, |one| format!("{} ({})", one.app.name, one.view.id));
        let room = usize::from(area.height.saturating_sub(2));
        let lines: Vec<Line<'_>> =
            self.log.iter().skip(self.log.len().saturating_sub(room)).map(|line| Line::from(line.as_str())).collect();
        frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(format!("logs of {name}"))), area);
    }
}

/// Returns the widths of the columns: each is as wide as what stands in it, and only names are cut where there is no room.
fn widths(rows: &[[String; COLUMNS]]) -> [Constraint; COLUMNS] {
    std::array::from_fn(|column| {
        let texts = rows.iter().map(|row| row[column].as_str()).chain([HEAD[column]]);
        let width = texts.map(|text| Line::from(text).width()).max().unwrap_or_default() as u16;
        if HEAD[column] == "name" { Constraint::Max(width) } else { Constraint::Length(width) }
    })
}

/// Returns the last lines of an instance's logs, the most recently written log last. Removes control characters, which must
/// not reach the terminal.
fn ends(one: &Measured) -> Vec<String> {
    let mut paths: Vec<&Path> = one.view.logs.iter().map(PathBuf::as_path).collect();
    paths.dedup();
    paths.sort_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok());
    let texts = paths.into_iter().map(|path| tail(path, LOG_END).unwrap_or_default());
    let lines = texts.flat_map(|text| {
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().map(|line| line.chars().filter(|c| !c.is_control()).collect()).collect::<Vec<String>>()
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn a_narrow_terminal_shows_every_column_and_most_of_a_name() {
        let app = json!({ "name": "a-rather-long-name-of-an-app", "mode": "cluster", "command": [], "directory": "/", "listeners": [], "options": {} });
        let view = json!({
            "id": 7, "number": 0, "pid": 1_234_567, "uptime_ms": 3_599_000, "restarts": 0, "status": "online", "generation": 1, "logs": ["/out", "/error"],
            "created_s": 0
        });
        let (app, view) = (serde_json::from_value(app).unwrap(), serde_json::from_value(view).unwrap());
        let one = Measured { app: Arc::new(app), view, cpu: Some(0.0), memory: Some(100 << 20) };
        let screen = Screen { measured: vec![one], ..Screen::default() };
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let shown = terminal.backend().to_string();
        let row = shown.lines().find(|line| line.contains("1234567")).unwrap_or_else(|| panic!("{shown}"));
        let is_shown = |text: &str| row.contains(text);
        assert!(["a-rather-long-name", "cluster", "59m 59s", "online", "0 %", "100.0 MiB"].into_iter().all(is_shown), "{row}");
    }
}
