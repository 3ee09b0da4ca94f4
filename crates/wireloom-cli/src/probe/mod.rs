#[derive(clap::Args)]
pub(crate) struct ProbeArgs {
    #[arg(long)]
    pub(crate) json: bool,
}
pub(crate) async fn run(_: ProbeArgs) -> Result<(), crate::failure::Failure> {
    Ok(())
}
