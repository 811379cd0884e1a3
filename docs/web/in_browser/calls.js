/**
 * Calls to the worker. It and what it needs are loaded when the first picture comes, so that the
 * page itself is light.
 *
 * The parts are scripts that hold text, because a page that is opened from a disk, without a
 * server, may load scripts and nothing else.
 */

const PARTS = ["worker", "runtime", "wasm", "graph", "texts"];

/** Load one part of the page: a script that puts a value into `patchcoreParts`. */
function loadPart(folder, name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(`${name}.js`, folder);
    script.onload = () => resolve(self.patchcoreParts[name]);
    script.onerror = () => reject(new Error(`${name}.js: cannot be loaded; reload the page`));
    document.head.append(script);
  });
}

/**
 * Start the worker.
 *
 * @param {URL} folder where the parts are
 * @param {function(string)} say tells a person what is going on
 * @returns {Promise<function>} call(name, given, report): asks the worker; `report` is called with
 *   each progress. `call.parts(name)` loads a further part.
 */
export async function startWorker(folder, say) {
  say("Loading the network: 8 MB, once.");
  const parts = {};
  for (const name of PARTS) parts[name] = await loadPart(folder, name);
  const source = new Blob([parts.worker], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(source));
  const waiting = new Map();
  let lastId = 0;
  worker.onmessage = ({ data: { id, progress, result, error } }) => {
    const { resolve, reject, report } = waiting.get(id);
    if (progress) return report?.(progress);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  };
  worker.onerror = (event) => {
    for (const { reject } of waiting.values()) reject(new Error(`${event.message}; reload the page`));
    waiting.clear();
  };
  const call = (name, given, report) =>
    new Promise((resolve, reject) => {
      waiting.set(++lastId, { resolve, reject, report });
      worker.postMessage({ id: lastId, call: name, given });
    });
  call.parts = (name) => loadPart(folder, name);
  say("Starting the network.");
  await call("start", parts);
  return call;
}
