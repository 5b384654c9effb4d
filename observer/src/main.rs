//! t
use observer::engine::*;
fn main() -> anyhow::Result<()> {
    let t = std::time::Instant::now();
    let e = Engine::start(Options {
        scans: Scans::Regularly,
        diagnostics: false,
    })?;
    println!("{:?}", t.elapsed());
    println!("{:#?}", e.snapshot(9));
    Ok(())
}
