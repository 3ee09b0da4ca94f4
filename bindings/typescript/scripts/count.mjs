// A vitest reporter that closes with the line by which `cargo xtask test` counts, as `cargo test` does.
export default class Count {
  onTestRunEnd(modules) {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state) => tests.filter((test) => test.result().state === state).length;
    // A file that could not be loaded, or a hook that failed, is a failure that no test has told.
    const broken = modules.filter((module) => module.state() === 'failed' && ![...module.children.allTests('failed')].length).length;
    const [passed, failed, ignored] = [count('passed'), count('failed') + broken, count('skipped') + count('pending')];
    console.log(`test result: ${failed ? 'FAILED' : 'ok'}. ${passed} passed; ${failed} failed; ${ignored} ignored`);
  }
}
