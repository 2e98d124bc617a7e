// Fails when the committed types are not what `openapi.json` says: run `npm run types` and commit.
import { readFile } from "node:fs/promises";
import openapiTS, { astToString, COMMENT_HEADER } from "openapi-typescript";

const at = (name) => new URL(`../${name}`, import.meta.url);
const generated = COMMENT_HEADER + astToString(await openapiTS(at("openapi.json")));
const committed = await readFile(at("src/backend/control.gen.ts"), "utf8");
if (generated !== committed) {
  console.error("error: src/backend/control.gen.ts is not what openapi.json says\nhint: npm run types");
  process.exit(1);
}
