/** Pictures from the camera, where there is one that the page may ask for. */

let takePicture = null; // what is done with the next one

/**
 * Show a button that opens the camera.
 *
 * @param {function(string): HTMLElement} element finds a part of the page
 * @param {string} name of the button
 * @param {function(File[])} take what is done with a picture
 */
export function showCamera(element, name, take) {
  if (!navigator.mediaDevices?.getUserMedia) return;
  const [button, dialog, video] = [name, "camera", "video"].map(element);
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      const wish = { video: { facingMode: "environment" } };
      video.srcObject = await navigator.mediaDevices.getUserMedia(wish);
    } catch (error) {
      element("problems").textContent = `The camera cannot be used (${error.message}).`;
      element("problems").hidden = false;
      return;
    }
    takePicture = take;
    dialog.showModal();
    await video.play();
  });
  if (dialog.onclose) return; // the dialog serves all buttons
  dialog.onclose = () => video.srcObject?.getTracks().forEach((track) => track.stop());
  element("close").addEventListener("click", () => dialog.close());
  element("shoot").addEventListener("click", async () => {
    element("shoot").disabled = true; // until the picture has been read
    await shoot(video);
    element("shoot").disabled = false;
  });
}

let count = 0;

/** Take what the camera shows now. */
async function shoot(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  await takePicture([new File([blob], `camera ${++count}.png`, { type: "image/png" })]);
}
