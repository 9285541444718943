//! Patches: any content survives them, and any bytes may be decoded as one.

use delta::patch;

use super::script::Script;

/// 16 KiB: the most that is announced.
const NEW_BYTES_MAX: usize = 16 * 1024;

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let announced = (usize::from(script.byte()) << 8 | usize::from(script.byte())).min(NEW_BYTES_MAX);
    let basis = script.run().to_vec();
    let rest = script.run();
    match patch::decompress(rest, &basis, announced) {
        Ok(made) => assert_eq!(made.len(), announced),
        Err(error) => drop(error.to_string()),
    }
    let patch = patch::compress(rest, &basis).expect("a short basis");
    assert_eq!(patch::decompress(&patch, &basis, rest.len()).as_deref(), Ok(rest));
}

pub fn seeds() -> Vec<Vec<u8>> {
    let basis = "import { one } from './one-Ab3dEf.js'; ".repeat(4);
    let new = basis.replace("Ab3dEf", "Xy12Zz").replacen("one", "another", 1);
    let patch = patch::compress(new.as_bytes(), basis.as_bytes()).expect("short enough");
    let script = |announced: usize, run: &[u8]| {
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).expect("short").to_le_bytes();
        let announced = u16::try_from(announced).expect("short").to_be_bytes();
        [&announced[..], &length(basis.as_bytes()), basis.as_bytes(), &length(run), run].concat()
    };
    vec![script(new.len(), &patch), script(100, new.as_bytes())]
}
