// A picture leads to its own file, where it can be seen at any size: on a phone the text in a figure is too small to read.
document.querySelectorAll("article img").forEach((picture) => {
  if (picture.closest("a")) return;
  const link = document.createElement("a");
  link.href = picture.src;
  link.title = "Open the picture by itself";
  picture.replaceWith(link);
  link.append(picture);
});
