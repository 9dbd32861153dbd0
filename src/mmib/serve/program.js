// What is on the page as lines to copy into a terminal or a program.

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const SENT_AS_THEY_ARE = ["text", "evidence", "samples", "entities", "crops"];

/** A curl line: fields as strings, so that a text that begins with @ names no file. */
export const curlLine = (origin, body, imageName) => [
  `curl ${shell(`${origin}/api/extract`)}`,
  ...SENT_AS_THEY_ARE.filter((name) => body[name]).map((name) => `--form-string ${shell(`${name}=${name === "text" ? body[name] : JSON.stringify(body[name])}`)}`),
  ...(imageName ? [`-F ${shell(`image=@"${imageName.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`)}`] : []),
].join(" ");

// Texts and numbers are written alike in JSON and Python.
const python = (value) => {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, part]) => `${python(name)}: ${python(part)}`).join(", ")}}`;
  return JSON.stringify(value);
};

/** Python lines that read the post with the model itself. */
export const pythonLines = (body, imageName) => {
  const options = SENT_AS_THEY_ARE.slice(1).filter((name) => body[name]).map((name) => `${name}=${python(body[name])}`);
  const given = [python(body.text), ...(imageName ? [`image=${python(imageName)}`] : []), ...options];
  return `from mmib import Extractor\n\nextractor = Extractor.from_pretrained("MODEL")\nprint(extractor.extract(${given.join(", ")}).to_dict())`;
};
